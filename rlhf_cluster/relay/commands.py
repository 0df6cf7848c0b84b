"""Commands of the API on their way into `control/` of the job's directory, and the driver's answers on their way back.

A command keeps the service's id, so that one that is delivered again is not obeyed again.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path

from rlhf_cluster.driver import mailbox
from rlhf_cluster.driver.mailbox import Answer
from rlhf_cluster.relay.link import Link, Refused, Unreachable
from rlhf_cluster.wire.relay import Answered, Delivered

WAIT_S = 25.0
LOOK_EVERY_S = 0.2
AGAIN_S = 2.0
"""Before the service is asked again, where it or the disk has refused."""
MAX_TEXT = 10_000
OURS = "cmd_"
"""How the ids of the service begin."""


class Commands:
    def __init__(self, job_dir: Path, link: Link) -> None:
        """Commands that a former attempt has left are withdrawn; what is still wanted of them comes again."""
        self._job_dir = job_dir
        self._link = link
        self._held: dict[str, Answer | None] = {}
        """Those delivered whose answer the service does not have, with the answer where there is one."""
        for path in (job_dir / "control" / "inbox").glob(f"{OURS}*.json"):
            mailbox.withdraw(job_dir, path.stem)

    async def receive(self, *, kill: Callable[[], None]) -> None:
        """consumes: the service's commands; produces: files in the inbox; waits for: the service, which answers at the
        latest after `WAIT_S`; unblocked by: cancellation. `kill` ends the driver: one that hangs reads no command."""
        while True:
            try:
                told = await self._link.commands(held=list(self._held), wait_s=WAIT_S)
                for delivered in told.commands:
                    self._deliver(delivered)
                if told.kill:
                    kill()
                    await asyncio.sleep(AGAIN_S)  # what runs beside this sees the end
            except (Unreachable, OSError):
                await asyncio.sleep(AGAIN_S)

    async def answer(self) -> None:
        """consumes: files in the outbox; produces: the service's answers; waits for: the driver; unblocked by:
        cancellation."""
        while True:
            with contextlib.suppress(Unreachable):
                await self.send_answers()
            await asyncio.sleep(LOOK_EVERY_S)

    async def send_answers(self) -> None:
        """Send those that are there. Raises `Unreachable`."""
        for command_id in list(self._held):
            # Kept here once it was seen: the driver sweeps its outbox, whether or not the service is away.
            given = self._held[command_id] = self._held[command_id] or self._look(command_id)
            if given is None:
                continue
            # A command that the service does not know any more needs no answer.
            with contextlib.suppress(Refused):
                await self._link.answer(command_id, Answered(ok=given.ok, text=given.text[:MAX_TEXT]))
            del self._held[command_id]

    def _look(self, command_id: str) -> Answer | None:
        with contextlib.suppress(OSError):
            return mailbox.answer(self._job_dir, command_id)
        return None

    def _deliver(self, delivered: Delivered) -> None:
        command_id = delivered.command_id
        if command_id in self._held:
            return
        refusal: Answer | None = None
        if mailbox.answer(self._job_dir, command_id) is None:
            try:
                command = mailbox.from_json(delivered.body)
            except ValueError as error:
                refusal = Answer(ok=False, text=str(error))
            else:
                mailbox.post(self._job_dir, command, wanted_until_s=delivered.expires_s, command_id=command_id)
        self._held[command_id] = refusal
