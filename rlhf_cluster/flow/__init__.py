"""The distributed state machines, sans IO: events and snapshots in, decisions out. No clock, no randomness, no asyncio."""
