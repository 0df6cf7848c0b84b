"""A role that fails in the ways that roles fail, named by import path; it lives in an actor's process."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence

from rlhf_cluster.errors import ModelError, RoleTimeout
from rlhf_cluster.records import RolloutGroup


class Fragile:
    def __init__(self, *, mood: str = "") -> None:
        if mood == "no model":
            raise ModelError("that is no model")

    async def status(self) -> int:
        return os.getpid()

    async def score(self, groups: Sequence[RolloutGroup]) -> None:
        """Does what the prompt's text says."""
        match groups[0].prompt.text:
            case "raise one of ours":
                raise RoleTimeout("took too long", role="judge", worker_id="judge-1", activity="judging")
            case "raise a bug":
                raise ZeroDivisionError("a bug of ours")
            case "hang":
                await asyncio.Event().wait()
            case "die":
                os._exit(1)
