"""Ids that sort by the time at which they were made, and secrets that nobody guesses."""

from __future__ import annotations

import hashlib
import secrets
import time

ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
"""Crockford's base 32: no letter looks like a digit or like another letter."""


def new_id(prefix: str) -> str:
    """`job_` and 18 characters, ten of them milliseconds."""
    number = (time.time_ns() // 1_000_000 << 40) | secrets.randbits(40)
    characters = []
    for _ in range(18):
        number, digit = divmod(number, 32)
        characters.append(ALPHABET[digit])
    return f"{prefix}_{''.join(reversed(characters))}"


def new_secret(prefix: str) -> str:
    """256 bits, with a prefix by which scanners of repositories find it."""
    return f"rlhf_{prefix}_{secrets.token_urlsafe(32)}"


def digest(secret: str) -> str:
    """What is stored of a secret. It has 256 bits of its own, so a slow hash would protect nothing."""
    return hashlib.sha256(secret.encode()).hexdigest()
