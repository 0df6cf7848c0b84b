"""Model-written text made fit for a terminal: one bounded line that cannot move the cursor or recolour the screen."""

from __future__ import annotations

import re
from typing import Literal

UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters but tab and newline, direction overrides, lone surrogates. Joiners stay: scripts need them."""


def printable(text: str) -> str:
    """`text` with every unprintable character shown as U+FFFD.

    >>> printable("red \\x1b[31malert")
    'red \\ufffd[31malert'
    """
    return UNPRINTABLE.sub("\ufffd", text)


def excerpt(text: str, *, width: int = 100, keep: Literal["start", "end"] = "start") -> str:
    """One printable line of at most `width` characters, of the text's start or end; a cut is marked with `...`.

    >>> excerpt("a film\\nthat  never ends", width=12)
    'a film th...'
    >>> excerpt("a film that never ends", width=12, keep="end")
    '...ever ends'
    """
    line = " ".join(printable(text).split())
    if len(line) <= width:
        return line
    return line[: max(width - 3, 0)] + "..." if keep == "start" else "..." + line[-max(width - 3, 1) :]
