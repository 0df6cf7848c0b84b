"""The relay: runs one attempt's driver as its child, and carries news and commands between it and the service."""
