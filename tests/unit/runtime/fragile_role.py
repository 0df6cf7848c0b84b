"""A role that fails in the ways that roles fail, named by import path; it lives in an actor's process."""

from __future__ import annotations

import asyncio
import ctypes
import itertools
import os
from collections.abc import AsyncIterator, Sequence

from rlhf_cluster.errors import ModelError, RoleTimeout
from rlhf_cluster.records import RolloutGroup, WorkerStatus


class Fragile:
    def __init__(self, *, mood: str = "") -> None:
        self.num_in_flight = 0
        if mood == "no model":
            raise ModelError("that is no model")

    async def status(self) -> WorkerStatus:
        return WorkerStatus(
            role="fragile",
            worker_id="",
            state="idle",
            activity="being fragile",
            num_in_flight=self.num_in_flight,
            process_id=os.getpid(),
        )

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
            case "die telling":
                print("the last words", flush=True)
                os.write(2, b"and some from C\n")
                os._exit(1)
            case "eat all memory":
                raise MemoryError("no more")
            case "hold the GIL":
                ctypes.PyDLL(None).sleep(3)

    async def start(self) -> None:
        pass

    async def close(self) -> None:
        pass

    async def run(self, requests: Sequence[object]) -> AsyncIterator[int]:
        """Messages without end, until nobody reads them."""
        self.num_in_flight += 1
        try:
            for number in itertools.count():
                yield number
                await asyncio.sleep(0.02)
        finally:
            self.num_in_flight -= 1
