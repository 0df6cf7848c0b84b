"""The distributed state machines, sans IO: events and snapshots in, decisions out. No clock, randomness or asyncio."""
