"""Commands reach the inbox under the service's id and their answers the service, each once, whoever dies in between."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rlhf_cluster.driver import mailbox
from rlhf_cluster.driver.mailbox import Mailbox
from rlhf_cluster.records.commands import Pause, Scale
from rlhf_cluster.relay.commands import Commands
from rlhf_cluster.relay.link import Link, Unreachable

from .stand_in import Asked, Said, StandIn, problem

SCALE = {"command": "Scale", "role": "rollout", "num_workers": 3}
BOUND_S = 30.0


def delivering(*bodies: dict[str, Any]) -> Callable[[Asked], Said]:
    """Says all commands that the relay does not hold, as the service does."""

    def says(asked: Asked) -> Said:
        if asked.method == "POST":
            return Said(204)
        rows = [{"command_id": f"cmd_{n}", "body": body, "expires_s": None} for n, body in enumerate(bodies)]
        return Said(200, {"commands": [row for row in rows if f"held={row['command_id']}" not in asked.path]})

    return says


def relay(stand_in: StandIn, job_dir: Path, until: Callable[[], bool]) -> None:
    """Both directions, until `until`."""

    async def whole() -> None:
        async with Link(stand_in.url, token="secret", num_tries=1) as link, asyncio.timeout(BOUND_S):
            commands = Commands(job_dir, link)
            work = [asyncio.create_task(commands.receive(kill=lambda: None)), asyncio.create_task(commands.answer())]
            while not until():
                assert not any(task.done() for task in work)
                await asyncio.sleep(0.01)
            for task in work:
                task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.gather(*work)

    asyncio.run(whole())


def answers(stand_in: StandIn) -> list[tuple[str, Any]]:
    return [(asked.path.split("/")[-2], asked.json) for asked in stand_in.asked if asked.method == "POST"]


def test_a_command_is_obeyed_under_the_services_id_and_answered_once(tmp_path, stand_in: StandIn):
    stand_in.says = delivering(SCALE)
    box = Mailbox(tmp_path)
    obeyed: list[Any] = []

    def driver() -> bool:
        for command_id, command in box.take():
            obeyed.append((command_id, command))
            box.reply(command_id, ok=True, text="3 wanted")
        return bool(answers(stand_in))

    relay(stand_in, tmp_path, driver)
    assert obeyed == [("cmd_0", Scale(role="rollout", num_workers=3))]
    assert answers(stand_in) == [("cmd_0", {"ok": True, "text": "3 wanted"})]


def test_a_command_that_this_driver_does_not_know_is_refused_with_the_reason(tmp_path, stand_in: StandIn):
    stand_in.says = delivering({"command": "Fly"})
    relay(stand_in, tmp_path, lambda: bool(answers(stand_in)))
    [(_, said)] = answers(stand_in)
    assert not said["ok"]
    assert "Fly" in said["text"]
    assert Mailbox(tmp_path).take() == []


def test_a_command_with_an_answer_is_not_put_before_the_driver_again(tmp_path, stand_in: StandIn):
    mailbox.post(tmp_path, Pause(), command_id="cmd_0")
    Mailbox(tmp_path).reply("cmd_0", ok=True, text="paused")
    stand_in.says = delivering({"command": "Pause"})
    relay(stand_in, tmp_path, lambda: bool(answers(stand_in)))
    assert answers(stand_in) == [("cmd_0", {"ok": True, "text": "paused"})]
    assert Mailbox(tmp_path).take() == []


def test_what_a_former_attempt_left_is_withdrawn_and_what_a_person_asked_stays(tmp_path, stand_in: StandIn):
    mailbox.post(tmp_path, Pause(), command_id="cmd_9")
    own = mailbox.post(tmp_path, Pause())
    stand_in.says = delivering()
    relay(stand_in, tmp_path, lambda: bool(stand_in.asked))
    assert [command_id for command_id, _ in Mailbox(tmp_path).take()] == [own]


def test_a_job_that_is_to_be_killed_needs_no_driver_that_listens(tmp_path, stand_in: StandIn):
    stand_in.says = lambda asked: Said(200, {"commands": [], "kill": True})

    async def whole() -> None:
        was_killed = asyncio.Event()
        async with Link(stand_in.url, token="secret", num_tries=1) as link, asyncio.timeout(BOUND_S):
            receiving = asyncio.create_task(Commands(tmp_path, link).receive(kill=was_killed.set))
            await was_killed.wait()
            receiving.cancel()

    asyncio.run(whole())
    assert not list((tmp_path / "control" / "inbox").glob("*"))


def test_an_answer_outlives_a_service_that_is_away_and_a_driver_that_sweeps(tmp_path, stand_in: StandIn):
    async def whole() -> None:
        async with Link(stand_in.url, token="secret", num_tries=1) as link:
            stand_in.says = delivering(SCALE)
            commands = Commands(tmp_path, link)
            receiving = asyncio.create_task(commands.receive(kill=lambda: None))
            async with asyncio.timeout(BOUND_S):
                while not (tmp_path / "control" / "inbox" / "cmd_0.json").exists():  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            receiving.cancel()
            Mailbox(tmp_path).reply("cmd_0", ok=True, text="3 wanted")
            stand_in.says_in_turn(Said(503, b""))
            with pytest.raises(Unreachable):
                await commands.send_answers()
            (tmp_path / "control" / "outbox" / "cmd_0.json").unlink()
            stand_in.asked.clear()
            stand_in.says_in_turn(Said(204))
            await commands.send_answers()
            await commands.send_answers()

    asyncio.run(whole())
    assert answers(stand_in) == [("cmd_0", {"ok": True, "text": "3 wanted"})]


def test_a_command_that_the_service_has_forgotten_needs_no_answer(tmp_path, stand_in: StandIn):
    mailbox.post(tmp_path, Pause(), command_id="cmd_0")
    Mailbox(tmp_path).reply("cmd_0", ok=True, text="paused")
    deliver = delivering({"command": "Pause"})
    stand_in.says = lambda asked: problem(404, "not_found") if asked.method == "POST" else deliver(asked)
    relay(stand_in, tmp_path, lambda: bool(answers(stand_in)))
    assert json.loads((tmp_path / "control" / "outbox" / "cmd_0.json").read_text())["ok"]
