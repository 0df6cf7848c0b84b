"""httpx without its command line program, which would load libraries that take longer to start than all the rest."""

from __future__ import annotations

import sys

_PROGRAM = "httpx._main"
if "httpx" not in sys.modules:
    sys.modules[_PROGRAM] = None  # ty: ignore[invalid-assignment]  # Python's own way to say: not to be imported

import httpx  # noqa: E402

if sys.modules.get(_PROGRAM, httpx) is None:
    del sys.modules[_PROGRAM]

__all__ = ["httpx"]
