"""Commands through the job directory: what is posted is answered once, and nothing that lies there ends a driver."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf_cluster.driver.mailbox import COMMANDS, KEEP_S, Answer, Mailbox, answer, from_json, post, to_json, withdraw
from rlhf_cluster.errors import ConfigError, Fenced
from rlhf_cluster.records import commands
from rlhf_cluster.records.commands import Autoscale, Checkpoint, Command, Drain, Pause, Restart, Resume, Scale, Stop
from rlhf_cluster.testing import FakeClock

EVERY_COMMAND = [
    Scale(role="rollout", num_workers=3),
    Autoscale(role="rollout", min_workers=1, max_workers=8),
    Drain(worker_id="rollout-2"),
    Restart(worker_id="rollout-2"),
    Pause(),
    Resume(),
    Checkpoint(),
    Stop(),
]


def put(job_dir: Path, name: str, content: str | bytes) -> Path:
    path = job_dir / "control" / "inbox" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def inbox(job_dir: Path) -> list[str]:
    return sorted(path.name for path in (job_dir / "control" / "inbox").iterdir())


async def served(job_dir: Path, obey, *, until) -> None:
    """Serve until `until()` is true; an error of the mailbox is raised."""
    serving = asyncio.create_task(Mailbox(job_dir).serve(obey, every_s=0.005))
    async with asyncio.timeout(20):
        while not until() and not serving.done():  # noqa: ASYNC110 - it is files that are waited for
            await asyncio.sleep(0.005)
    serving.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await serving


def test_every_command_is_known():
    defined = {kind for kind in vars(commands).values() if isinstance(kind, type) and issubclass(kind, Command)}
    assert {type(command) for command in EVERY_COMMAND} == set(COMMANDS.values()) == defined - {Command}


@pytest.mark.parametrize("command", EVERY_COMMAND, ids=lambda command: type(command).__name__)
def test_a_command_reaches_the_driver_and_its_answer_the_client(tmp_path, command):
    command_id = post(tmp_path, command)
    mailbox = Mailbox(tmp_path)
    assert mailbox.take() == [(command_id, command)]
    assert answer(tmp_path, command_id) is None
    mailbox.reply(command_id, ok=True, text="done")
    assert answer(tmp_path, command_id) == Answer(ok=True, text="done")
    assert mailbox.take() == []


def test_the_json_form_is_plain():
    assert to_json(Scale(role="rollout", num_workers=3)) == {"command": "Scale", "role": "rollout", "num_workers": 3}


@given(st.one_of(st.builds(Scale, role=st.text(), num_workers=st.integers()), st.builds(Drain, worker_id=st.text())))
def test_any_command_survives_json(command):
    assert from_json(json.loads(json.dumps(to_json(command)))) == command


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({}, "command = null: it is one of Scale, Autoscale, Drain, Restart, Pause"),
        ({"command": "Scael"}, "did you mean 'Scale'?"),
        ({"command": ["Scale"]}, "it is one of"),
        ({"command": "Scale", "role": "rollout"}, "'num_workers' is missing"),
        ({"command": "Scale", "role": "rollout", "num_workers": "3"}, 'num_workers = "3" has to be a whole number'),
        ({"command": "Scale", "role": "rollout", "num_workers": True}, "has to be a whole number"),
        ({"command": "Scale", "role": 7, "num_workers": 3}, "role = 7 has to be text"),
        ({"command": "Drain", "worker": "rollout-2"}, "unknown field 'worker' (did you mean 'worker_id'?)"),
        ({"command": "Pause", "for_s": 3}, "Pause has no fields"),
    ],
)
def test_what_is_no_command_is_refused_with_the_change_to_make(data, message):
    with pytest.raises(ValueError) as refusal:
        from_json(data)
    assert message in str(refusal.value)


def test_commands_are_taken_oldest_first_and_stay_until_they_are_answered(tmp_path):
    posted = [(post(tmp_path, command), command) for command in (Pause(), Checkpoint(), Resume())]
    mailbox = Mailbox(tmp_path)
    assert mailbox.take() == posted
    mailbox.reply(posted[0][0], ok=True, text="paused")
    assert mailbox.take() == posted[1:]
    assert Mailbox(tmp_path).take() == posted[1:], "a next driver finds what was not answered"


def test_of_several_scales_of_a_role_the_newest_counts(tmp_path):
    first, second = (post(tmp_path, Scale(role="rollout", num_workers=number)) for number in (9, 2))
    other = post(tmp_path, Scale(role="reward", num_workers=4))
    assert [command_id for command_id, _ in Mailbox(tmp_path).take()] == [second, other]
    superseded = answer(tmp_path, first)
    assert superseded is not None
    assert not superseded.ok
    assert "later command" in superseded.text


def test_a_number_and_a_policy_for_one_role_supersede_each_other(tmp_path):
    auto = Autoscale(role="rollout", min_workers=1, max_workers=8)
    by_hand = post(tmp_path, Scale(role="rollout", num_workers=9))
    policy = post(tmp_path, auto)
    assert Mailbox(tmp_path).take() == [(policy, auto)]
    last = post(tmp_path, Scale(role="rollout", num_workers=2))
    assert [command_id for command_id, _ in Mailbox(tmp_path).take()] == [last]
    for superseded in (by_hand, policy):
        told = answer(tmp_path, superseded)
        assert told is not None
        assert not told.ok
        assert told.text == "a later command scales rollout too; only that counts"


def test_a_withdrawn_command_is_not_seen(tmp_path):
    command_id = post(tmp_path, Stop())
    withdraw(tmp_path, command_id)
    withdraw(tmp_path, command_id)
    assert Mailbox(tmp_path).take() == []


def test_a_command_that_nobody_waits_for_any_more_is_not_obeyed_but_a_scale_stays(tmp_path):
    scale = post(tmp_path, Scale(role="rollout", num_workers=3))
    stop = post(tmp_path, Stop(), wanted_until_s=1000.0)
    assert len(Mailbox(tmp_path, clock=FakeClock(999.0)).take()) == 2
    assert [command_id for command_id, _ in Mailbox(tmp_path, clock=FakeClock(1001.0)).take()] == [scale]
    late = answer(tmp_path, stop)
    assert late is not None
    assert "too late" in late.text


HOSTILE = [
    b"",
    b'{"command": "Sca',
    b"\xff\xfe\x00",
    b"[]",
    b"null",
    b'{"command": "Format"}',
    b'{"command": "Pause", "wanted_until_s": "soon"}',
    b'{"command": "Scale", "role": "rollout", "num_workers": 1' + b"0" * 10_000 + b"}",
    b"[" * 100_000,
    b" " * 5_000_000,
]


@pytest.mark.parametrize("content", HOSTILE, ids=range(len(HOSTILE)))
def test_a_file_that_is_no_command_is_answered_with_the_reason_and_removed(tmp_path, content):
    put(tmp_path, "0-odd.json", content)
    good = post(tmp_path, Pause())
    assert Mailbox(tmp_path).take() == [(good, Pause())]
    refused = answer(tmp_path, "0-odd")
    assert refused is not None
    assert not refused.ok
    assert refused.text.startswith("control/inbox/0-odd.json is no command: ")
    assert len(refused.text) < 400
    assert inbox(tmp_path) == [f"{good}.json"]


@given(content=st.binary(max_size=80))
def test_no_bytes_in_the_inbox_end_a_driver(tmp_path_factory, content):
    job_dir = tmp_path_factory.mktemp("job")
    put(job_dir, "x.json", content)
    assert Mailbox(job_dir).take() == []
    assert answer(job_dir, "x") is not None


def test_what_is_no_file_is_neither_followed_nor_waited_for_nor_in_the_way(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text('{"command": "Stop"}')
    (tmp_path / "control" / "inbox").mkdir(parents=True)
    (tmp_path / "control" / "inbox" / "0-link.json").symlink_to(secret)
    (tmp_path / "control" / "inbox" / "0-directory.json").mkdir()
    os.mkfifo(tmp_path / "control" / "inbox" / "0-pipe.json")
    good = post(tmp_path, Pause())
    mailbox = Mailbox(tmp_path)
    assert mailbox.take() == mailbox.take() == [(good, Pause())]
    for name in ("0-link", "0-directory", "0-pipe"):
        refused = answer(tmp_path, name)
        assert refused is not None
        assert not refused.ok
    assert inbox(tmp_path) == ["0-directory.json", f"{good}.json"], "a directory cannot be removed like a file"
    assert secret.exists()


@pytest.mark.parametrize("name", ["note.txt", ".half.json.77", "a b.json", "ä.json", "x" * 200 + ".json", "..json"])
def test_files_with_other_names_are_left_alone(tmp_path, name):
    put(tmp_path, name, '{"command": "Stop"}')
    assert Mailbox(tmp_path).take() == []
    assert inbox(tmp_path) == [name]


def test_nothing_is_there_before_the_first_command(tmp_path):
    assert Mailbox(tmp_path).take() == []
    assert not (tmp_path / "control").exists()


def test_an_answer_that_cannot_be_written_is_owed_and_its_command_is_not_obeyed_twice(tmp_path):
    command_id = post(tmp_path, Checkpoint())
    (tmp_path / "control" / "outbox").write_text("in the way")
    mailbox = Mailbox(tmp_path)
    mailbox.take()
    mailbox.reply(command_id, ok=True, text="saved")
    other = post(tmp_path, Pause())
    assert mailbox.take() == [(other, Pause())]
    (tmp_path / "control" / "outbox").unlink()
    mailbox.take()
    assert answer(tmp_path, command_id) == Answer(ok=True, text="saved")


def test_a_command_that_was_answered_before_its_driver_died_is_not_obeyed_again(tmp_path):
    command_id = post(tmp_path, Stop())
    Mailbox(tmp_path).reply(command_id, ok=True, text="stopping")
    put(tmp_path, f"{command_id}.json", json.dumps(to_json(Stop())))
    assert Mailbox(tmp_path).take() == []
    assert inbox(tmp_path) == []


def test_old_answers_and_what_killed_writers_left_are_removed(tmp_path):
    first = post(tmp_path, Pause())
    mailbox = Mailbox(tmp_path)
    mailbox.reply(first, ok=True, text="paused")
    left = put(tmp_path, ".half.json.77", "{")
    fresh = put(tmp_path, ".being-written.json.78", "{")
    for path in (left, tmp_path / "control" / "outbox" / f"{first}.json"):
        past_s = path.stat().st_mtime - KEEP_S - 1
        os.utime(path, (past_s, past_s))
    second = post(tmp_path, Resume())
    mailbox.reply(second, ok=True, text="going on")
    assert answer(tmp_path, first) is None
    assert answer(tmp_path, second) == Answer(ok=True, text="going on")
    assert inbox(tmp_path) == [fresh.name]


def test_several_clients_at_once_get_each_their_own_answer(tmp_path):
    async def obey(command: Command) -> str:
        assert isinstance(command, Drain)
        return f"drained {command.worker_id}"

    def client(number: int) -> str:
        command_id = post(tmp_path, Drain(worker_id=f"rollout-{number}"))
        got = answer(tmp_path, command_id, within_s=20)
        assert got is not None
        return got.text

    async def all_clients() -> list[str]:
        serving = asyncio.create_task(Mailbox(tmp_path).serve(obey, every_s=0.005))
        with ThreadPoolExecutor(8) as threads:
            loop = asyncio.get_running_loop()
            said = await asyncio.gather(*(loop.run_in_executor(threads, client, number) for number in range(24)))
        serving.cancel()
        return said

    assert asyncio.run(all_clients()) == [f"drained rollout-{number}" for number in range(24)]
    assert inbox(tmp_path) == []


def test_a_refusal_is_an_answer_and_the_mailbox_goes_on(tmp_path):
    async def obey(command: Command) -> str:
        if isinstance(command, Drain):
            raise ConfigError("there is no worker rollout-9")
        return "paused"

    drain, pause = post(tmp_path, Drain(worker_id="rollout-9")), post(tmp_path, Pause())
    asyncio.run(served(tmp_path, obey, until=lambda: answer(tmp_path, pause)))
    assert answer(tmp_path, drain) == Answer(ok=False, text="there is no worker rollout-9")
    assert answer(tmp_path, pause) == Answer(ok=True, text="paused")


def test_an_error_nobody_foresaw_is_answered_and_raised(tmp_path):
    async def obey(command: Command) -> str:
        raise OSError("no space")

    command_id = post(tmp_path, Checkpoint())
    with pytest.raises(OSError, match="no space"):
        asyncio.run(served(tmp_path, obey, until=lambda: False))
    assert answer(tmp_path, command_id) == Answer(ok=False, text="the driver failed: OSError: no space")
    assert Mailbox(tmp_path).take() == [], "it would end the next driver too"


def test_a_driver_that_was_replaced_leaves_the_command_to_its_successor(tmp_path):
    async def obey(command: Command) -> str:
        raise Fenced("epoch 3 holds the job")

    command_id = post(tmp_path, Checkpoint())
    with pytest.raises(Fenced):
        asyncio.run(served(tmp_path, obey, until=lambda: False))
    assert Mailbox(tmp_path).take() == [(command_id, Checkpoint())]


def test_a_command_withdrawn_while_another_is_obeyed_is_not_obeyed(tmp_path):
    obeyed: list[Command] = []
    first, second, third = (post(tmp_path, command) for command in (Checkpoint(), Stop(), Pause()))

    async def obey(command: Command) -> str:
        obeyed.append(command)
        withdraw(tmp_path, second)
        return "done"

    asyncio.run(served(tmp_path, obey, until=lambda: answer(tmp_path, third)))
    assert obeyed == [Checkpoint(), Pause()]
    assert answer(tmp_path, first) is not None
    assert answer(tmp_path, second) is None


def test_a_mailbox_that_is_cancelled_while_it_obeys_leaves_the_command(tmp_path):
    started = asyncio.Event()

    async def obey(command: Command) -> str:
        started.set()
        await asyncio.Event().wait()
        return "never"

    command_id = post(tmp_path, Checkpoint())
    asyncio.run(served(tmp_path, obey, until=started.is_set))
    assert answer(tmp_path, command_id) is None
    assert Mailbox(tmp_path).take() == [(command_id, Checkpoint())]


def test_clients_and_drivers_load_nothing_heavy():
    program = "import sys, rlhf_cluster.driver.mailbox, rlhf_cluster.driver.status_file; print(*sys.modules)"
    child = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert not {"torch", "ray", "pydantic", "click"} & set(child.stdout.split())


def test_an_answer_is_plain_json_for_other_programs(tmp_path):
    command_id = post(tmp_path, Pause())
    Mailbox(tmp_path).reply(command_id, ok=True, text="paused")
    written = json.loads((tmp_path / "control" / "outbox" / f"{command_id}.json").read_text())
    assert written == dataclasses.asdict(Answer(ok=True, text="paused"))
