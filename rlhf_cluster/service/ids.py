"""Ids that sort by the time at which they were made, and secrets that nobody guesses."""

from __future__ import annotations

import hashlib
import secrets
import threading
import time

ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
"""Crockford's base 32: no letter looks like a digit or like another letter."""


_turn = threading.Lock()
_newest = 0


def new_id(prefix: str) -> str:
    """`job_` and 18 characters, ten of them milliseconds. One made later sorts later, also within a millisecond, for
    commands are obeyed in this order."""
    number = _next_number()
    characters = []
    for _ in range(18):
        number, digit = divmod(number, 32)
        characters.append(ALPHABET[digit])
    return f"{prefix}_{''.join(reversed(characters))}"


def _next_number() -> int:
    global _newest
    with _turn:
        now = (time.time_ns() // 1_000_000 << 40) | secrets.randbits(40)
        _newest = now if now > _newest else _newest + 1 + secrets.randbits(32)
        return _newest


def new_secret(prefix: str) -> str:
    """256 bits, with a prefix by which scanners of repositories find it."""
    return f"rlhf_{prefix}_{secrets.token_urlsafe(32)}"


def digest(secret: str) -> str:
    """What is stored of a secret. It has 256 bits of its own, so a slow hash would protect nothing."""
    return hashlib.sha256(secret.encode()).hexdigest()
