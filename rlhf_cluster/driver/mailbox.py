"""Commands to a running job and its answers, as files in `control/` of the job directory: no sockets, no ports.

A client puts a command into `control/inbox/`, named so that names sort by time; the driver puts the answer into
`control/outbox/` under the same name and then removes the command. A driver that dies leaves the command, and the next
driver obeys it where it is still wanted: one with `wanted_until_s` only until then, and none that its client has
withdrawn. `Scale` and `Autoscale` are states to be in, so they need no such limit. When a driver dies between the deed
and the answer, the next one does it again.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import re
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlhf_cluster.driver.clock import Clock, SystemClock
from rlhf_cluster.driver.record_json import build, parse_object
from rlhf_cluster.driver.whole_file import read_small, write_whole
from rlhf_cluster.errors import Fenced, RlhfError, did_you_mean
from rlhf_cluster.records.commands import Autoscale, Checkpoint, Command, Drain, Pause, Restart, Resume, Scale, Stop

COMMANDS = {kind.__name__: kind for kind in (Scale, Autoscale, Drain, Restart, Pause, Resume, Checkpoint, Stop)}
SIZES = (Scale, Autoscale)
"""Commands that say how many replicas a role should have: states to be in, of which the newest counts."""
COMMAND_ID = re.compile(r"[A-Za-z0-9_-]{1,80}")
KEEP_S = 600.0
"""Answers, and what killed writers left aside, are removed after this long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the driver said to a command."""

    ok: bool
    text: str


def to_json(command: Command) -> dict[str, Any]:
    """`{"command": "Scale", "role": "rollout", "num_workers": 3}`."""
    return {"command": type(command).__name__, **dataclasses.asdict(command)}


def from_json(data: dict[str, Any]) -> Command:
    """The command of `to_json`. Raises `ValueError` naming what is wrong and what is allowed."""
    name = data.get("command")
    if not isinstance(name, str) or name not in COMMANDS:
        raise ValueError(
            f"command = {json.dumps(name)[:80]}{did_you_mean(name, COMMANDS)}: it is one of {', '.join(COMMANDS)}"
        )
    return build(COMMANDS[name], {key: value for key, value in data.items() if key != "command"}, extra=False)


def post(job_dir: Path, command: Command, *, wanted_until_s: float | None = None, command_id: str | None = None) -> str:
    """Put a command before the driver, present or future, and return its id.

    A driver that finds it after `wanted_until_s` (Unix time) drops it; without one it stays until it is obeyed. Whoever
    gives an id of its own may post it again: a command with an answer is not obeyed twice.
    """
    command_id = command_id or f"{time.time_ns():020d}-{secrets.token_hex(4)}"
    path = _inbox(job_dir, command_id)
    path.parent.mkdir(parents=True, exist_ok=True)
    limit = {} if wanted_until_s is None else {"wanted_until_s": wanted_until_s}
    write_whole(path, json.dumps(to_json(command) | limit))
    return command_id


def answer(job_dir: Path, command_id: str, *, within_s: float = 0.0, every_s: float = 0.05) -> Answer | None:
    """The driver's answer, or None when there is none after `within_s`. Raises `OSError` when it cannot be read."""
    deadline_s = time.monotonic() + within_s
    while (given := _read_answer(job_dir, command_id)) is None and time.monotonic() < deadline_s:
        time.sleep(every_s)
    return given


def _read_answer(job_dir: Path, command_id: str) -> Answer | None:
    try:
        return build(Answer, parse_object(read_small(_outbox(job_dir, command_id))), extra=True)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None


def withdraw(job_dir: Path, command_id: str) -> None:
    """The command is no longer wanted. A driver that has begun with it goes on; a later one does not see it."""
    _inbox(job_dir, command_id).unlink(missing_ok=True)


class Mailbox:
    """The driver's side. Of several drivers on one directory only the one that holds the job may use it."""

    def __init__(self, job_dir: Path, *, clock: Clock | None = None) -> None:
        self._job_dir = job_dir
        self._clock = clock or SystemClock()
        self._owed: dict[str, Answer] = {}
        """Answers that could not be written yet; their commands are not obeyed again."""
        self._stuck: set[str] = set()
        """Answered commands whose files cannot be removed."""

    def take(self) -> list[tuple[str, Command]]:
        """The commands to obey, oldest first. They stay in the inbox until `reply`.

        What is no command is answered with the reason. Of several `Scale` and `Autoscale` for one role only the
        newest counts. Raises `OSError` when the directory cannot be read.
        """
        self._settle()
        commands: list[tuple[str, Command]] = []
        scaled: set[str] = set()
        for command_id in reversed(self._waiting()):
            command = self._read(command_id)
            if isinstance(command, SIZES) and command.role in scaled:
                self.reply(command_id, ok=False, text=f"a later command scales {command.role} too; only that counts")
            elif command is not None:
                commands.append((command_id, command))
                scaled |= {command.role} if isinstance(command, SIZES) else set()
        return commands[::-1]

    def is_wanted(self, command_id: str) -> bool:
        """False when its client has withdrawn it, or it was answered."""
        return _inbox(self._job_dir, command_id).exists()

    def reply(self, command_id: str, *, ok: bool, text: str) -> None:
        """Answer a command and remove it. An answer that cannot be written now is owed, and written by a later `take`
        or `reply`; its command is not obeyed again."""
        self._owed[command_id] = Answer(ok=ok, text=text)
        self._settle()

    def _settle(self) -> None:
        for command_id, owed in list(self._owed.items()):
            path = _outbox(self._job_dir, command_id)
            with contextlib.suppress(OSError):
                path.parent.mkdir(parents=True, exist_ok=True)
                write_whole(path, json.dumps(dataclasses.asdict(owed)))
                del self._owed[command_id]
                self._remove(command_id)
                self._sweep()

    async def serve(self, obey: Callable[[Command], Awaitable[str]], *, every_s: float = 0.5) -> None:
        """Obey commands one after the other until cancelled.

        consumes: the inbox; produces: answers; waits for: `obey`, which bounds its own waits and returns one sentence;
        unblocked by: cancellation. An `RlhfError` of `obey` is the answer; any other error is answered and raised. A
        disk that is full or away for a while stops no job: answers stay owed until they can be written.
        """
        while True:
            for command_id, command in await asyncio.to_thread(self._try_to_take):
                if self.is_wanted(command_id):
                    await self._obey(command_id, command, obey)
            await asyncio.sleep(every_s)

    def _try_to_take(self) -> list[tuple[str, Command]]:
        with contextlib.suppress(OSError):
            return self.take()
        return []

    async def _obey(self, command_id: str, command: Command, obey: Callable[[Command], Awaitable[str]]) -> None:
        try:
            given = Answer(ok=True, text=await obey(command))
        except Fenced:
            raise  # the command is for the driver that took over
        except RlhfError as error:
            given = Answer(ok=False, text=str(error))
        except Exception as error:
            # Answered before it travels: a command that the next driver finds again would end that one too.
            self.reply(command_id, ok=False, text=f"the driver failed: {type(error).__name__}: {error}")
            raise
        await asyncio.to_thread(self.reply, command_id, ok=given.ok, text=given.text)

    def _waiting(self) -> list[str]:
        try:
            names = os.listdir(self._job_dir / "control" / "inbox")
        except FileNotFoundError:
            return []
        found = [name.removesuffix(".json") for name in sorted(names) if name.endswith(".json")]
        # Other names are no client's: files being written, or something of somebody else's.
        return [name for name in found if COMMAND_ID.fullmatch(name) and not self._is_done(name)]

    def _is_done(self, command_id: str) -> bool:
        return command_id in self._owed or command_id in self._stuck

    def _read(self, command_id: str) -> Command | None:
        """None where there is nothing to obey: withdrawn just now, answered, no command, or no longer wanted."""
        if answer(self._job_dir, command_id) is not None:
            self._remove(command_id)  # a driver died between the answer and this
            return None
        try:
            data = parse_object(read_small(_inbox(self._job_dir, command_id)))
            until_s = data.pop("wanted_until_s", None)
            if until_s is not None and not isinstance(until_s, int | float):
                raise ValueError(f"wanted_until_s = {json.dumps(until_s)[:80]} has to be a number")
            command = from_json(data)
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            self.reply(command_id, ok=False, text=f"control/inbox/{command_id}.json is no command: {reason}")
            return None
        if until_s is not None and self._clock.time() > until_s:
            self.reply(command_id, ok=False, text="it came too late: its client does not wait for it any more")
            return None
        return command

    def _remove(self, command_id: str) -> None:
        try:
            withdraw(self._job_dir, command_id)
        except OSError:
            self._stuck.add(command_id)

    def _sweep(self) -> None:
        oldest_s = self._clock.time() - KEEP_S
        control = self._job_dir / "control"
        for path in (*(control / "outbox").iterdir(), *(control / "inbox").glob(".*")):
            with contextlib.suppress(OSError):
                if path.lstat().st_mtime < oldest_s:
                    path.unlink()


def _inbox(job_dir: Path, command_id: str) -> Path:
    return job_dir / "control" / "inbox" / f"{command_id}.json"


def _outbox(job_dir: Path, command_id: str) -> Path:
    return job_dir / "control" / "outbox" / f"{command_id}.json"
