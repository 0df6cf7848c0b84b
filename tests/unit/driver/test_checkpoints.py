"""Checkpoints are whole or absent whenever the process dies, damage is found, and the right ones stay."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rlhf_cluster.driver.checkpoint_manifest import MANIFEST, verify
from rlhf_cluster.driver.checkpoints import STATE_FILE, Checkpoints, newest_verified, read_state
from rlhf_cluster.errors import CheckpointCorrupt, Fenced, StorageError
from rlhf_cluster.learner.group import LearnerGroup
from rlhf_cluster.testing import FakeClock, FakeLearnerRank


class Claim:
    """The third driver's, which holds for `num_checks` more checks."""

    def __init__(self, *, epoch: int = 3, num_checks: int = 100) -> None:
        self.epoch = epoch
        self.num_checks = num_checks

    def check(self) -> None:
        self.num_checks -= 1
        if self.num_checks < 0:
            raise Fenced("driver 3 was replaced by driver 4")


def checkpoints(directory: Path, *, keep: int = 2, **options) -> Checkpoints:
    return Checkpoints(directory, keep=keep, state=lambda: {"next_request_id": 7}, clock=FakeClock(3.0), **options)


def save(kept: Checkpoints, *, step: int, rank: FakeLearnerRank | None = None, reward: float | None = None):
    metrics = {} if reward is None else {"eval/reward_mean": reward}
    return asyncio.run(kept.save(LearnerGroup([rank or FakeLearnerRank()]), step=step, metrics=metrics))


def everything(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def newest(directory: Path) -> tuple[str | None, list[str]]:
    told: list[str] = []
    found = newest_verified(directory, tell=told.append)
    return found and found.name, told


def test_a_checkpoint_holds_the_policy_and_the_drivers_state_under_a_manifest(tmp_path):
    event = save(checkpoints(tmp_path, claim=Claim()), step=12, reward=0.5)
    assert (event.step, event.path, event.time_s) == (12, tmp_path / "step-000012", 3.0)
    assert read_state(event.path) == {"step": 12, "next_request_id": 7, "metrics": {"eval/reward_mean": 0.5}}
    assert (event.path / "version").read_text() == "0"
    manifest = json.loads((event.path / MANIFEST).read_text())
    assert (manifest["step"], manifest["epoch"], set(manifest["files"])) == (12, 3, {"version", STATE_FILE})
    verify(event.path)


def test_only_the_newest_are_kept(tmp_path):
    kept = checkpoints(tmp_path, keep=2)
    for step in (1, 2, 10, 100):
        save(kept, step=step)
    assert everything(tmp_path) == ["step-000010", "step-000100"]
    assert [path.name for path in kept.saved()] == ["step-000010", "step-000100"]


def test_the_best_is_kept_besides_the_newest_until_a_better_one_comes(tmp_path):
    kept = checkpoints(tmp_path, keep=1, keep_best=1)
    left = []
    for step, reward in enumerate((0.1, 0.9, None, 0.3, float("nan"), 0.95, 0.2), start=1):
        save(kept, step=step, reward=reward)
        left.append(everything(tmp_path))
    assert left[4] == ["step-000002", "step-000005"]
    assert left[6] == ["step-000006", "step-000007"]


def test_a_step_saved_again_replaces_the_first_one(tmp_path):
    kept = checkpoints(tmp_path)
    rank = FakeLearnerRank()
    save(kept, step=4, rank=rank)
    rank.version = 9
    again = save(kept, step=4, rank=rank)
    assert (again.path / "version").read_text() == "9"
    assert everything(tmp_path) == ["step-000004"]
    verify(again.path)


def test_a_later_one_of_a_future_that_was_given_up_does_not_push_out_the_new_one(tmp_path):
    save(checkpoints(tmp_path, keep=1), step=20)
    (tmp_path / "step-000020" / "version").write_text("damaged")
    save(checkpoints(tmp_path, keep=1), step=12)
    assert newest(tmp_path)[0] == "step-000012"


def test_a_replaced_driver_changes_nothing(tmp_path):
    save(checkpoints(tmp_path, keep=1), step=1)
    with pytest.raises(Fenced):
        save(checkpoints(tmp_path, keep=1, claim=Claim(num_checks=0)), step=2)
    assert everything(tmp_path) == ["step-000001"]


def test_what_a_later_driver_is_writing_is_not_cleared(tmp_path):
    for name in (".writing-000001-2.1", ".writing-000001-4.1", ".removing-step-000001"):
        (tmp_path / name).mkdir()
    save(checkpoints(tmp_path, claim=Claim(epoch=3)), step=5)
    assert everything(tmp_path) == [".writing-000001-4.1", "step-000005"]


def test_a_learner_that_cannot_write_leaves_what_was_there_and_the_next_save_succeeds(tmp_path):
    class NoSpace(FakeLearnerRank):
        async def save(self, path, *, with_state):
            (path / "half").write_text("half")
            raise StorageError(f"{path} could not be written: No space left on device")

    kept = checkpoints(tmp_path, keep=1)
    save(kept, step=1)
    with pytest.raises(StorageError, match="No space left on device"):
        save(kept, step=2, rank=NoSpace())
    assert everything(tmp_path) == ["step-000001"]
    save(kept, step=3)
    assert everything(tmp_path) == ["step-000003"]


def test_the_learner_is_saved_as_it_was_when_the_save_began(tmp_path):
    class Slow(FakeLearnerRank):
        async def save(self, path, *, with_state):
            await super().save(path, with_state=with_state)
            await written.wait()

    async def whole():
        rank = Slow()
        group = LearnerGroup([rank])
        saving = checkpoints(tmp_path).begin(group, step=0)
        # Not awaited yet, and still in its place before the update.
        await group.update(None, None)
        during = saving.done()
        written.set()
        return rank, during, await saving

    async def updates(self, algorithm, batch):
        self.version += 1

    written = asyncio.Event()
    Slow.update = updates
    rank, during, event = asyncio.run(whole())
    assert (rank.version, during) == (1, False)
    assert (event.path / "version").read_text() == "0"


def test_where_no_directory_can_be_made_the_answer_says_so_and_not_the_call(tmp_path):
    (tmp_path / "checkpoints").write_text("a file")

    async def whole():
        begun = checkpoints(tmp_path / "checkpoints").begin(LearnerGroup([FakeLearnerRank()]), step=1)
        with pytest.raises(StorageError, match="Not a directory"):
            await begun

    asyncio.run(whole())


def flip_a_bit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


DAMAGES = {
    "a flipped bit": (lambda path: flip_a_bit(path / "version"), "version has changed since it was written"),
    "a truncated file": (lambda path: (path / STATE_FILE).write_text("{"), f"{STATE_FILE} has 1 bytes, and"),
    "a missing file": (lambda path: (path / "version").unlink(), "version is missing"),
    "no manifest": (lambda path: (path / MANIFEST).unlink(), f"{MANIFEST} is missing"),
    "half a manifest": (lambda path: (path / MANIFEST).write_text('{"step": 2'), "is no manifest"),
    "a changed manifest": (
        lambda path: (path / MANIFEST).write_text((path / MANIFEST).read_text().replace('"epoch": 0', '"epoch": 1')),
        "its own digest",
    ),
    "another name": (lambda path: path.rename(path.with_name("step-000003")), "step 2 under another name"),
}


@pytest.mark.parametrize(("damage", "sentence"), DAMAGES.values(), ids=DAMAGES)
def test_damage_is_told_and_the_one_before_is_used(tmp_path, damage, sentence):
    kept = checkpoints(tmp_path)
    save(kept, step=1)
    path = save(kept, step=2).path
    damage(path)
    found, told = newest(tmp_path)
    assert found == "step-000001"
    assert len(told) == 1
    assert "is not used" in told[0]
    assert sentence in told[0]
    with pytest.raises(CheckpointCorrupt):
        verify(path if path.exists() else path.with_name("step-000003"))


def test_where_nothing_is_whole_nothing_is_used(tmp_path):
    assert newest(tmp_path) == (None, [])
    (tmp_path / "step-000001").mkdir()
    assert newest(tmp_path)[0] is None


def test_later_ones_can_be_left_out(tmp_path):
    kept = checkpoints(tmp_path, keep=3)
    for step in (1, 5, 9):
        save(kept, step=step)
    assert newest_verified(tmp_path, tell=print, step_at_most=8) == tmp_path / "step-000005"


KILLED = """
import asyncio, os, signal, sys
from pathlib import Path
from rlhf_cluster.driver.checkpoints import Checkpoints
from rlhf_cluster.learner.group import LearnerGroup
from rlhf_cluster.testing import FakeClock, FakeLearnerRank

class Rank(FakeLearnerRank):
    async def save(self, path, *, with_state):
        for number in range(3):
            (path / f"shard-{number}").write_bytes(b"x" * 1000)

def save(directory, step):
    kept = Checkpoints(directory, keep=1, state=dict, clock=FakeClock())
    asyncio.run(kept.save(LearnerGroup([Rank()]), step=step))

def die_before_change(number, directory):
    seen = 0

    def watch(event, arguments):  # Python announces every change of the directory before it happens.
        nonlocal seen
        inside = event in ("open", "os.mkdir", "os.rename") and str(directory) in str(arguments[0])
        if inside or event in ("os.remove", "os.rmdir"):
            if seen == number:
                os.kill(os.getpid(), signal.SIGKILL)
            seen += 1

    sys.addaudithook(watch)

base, step = Path(sys.argv[1]), int(sys.argv[2])
for number in range(1000):
    directory = base / f"{number:03d}"
    save(directory, 1)
    child = os.fork()
    if child == 0:
        die_before_change(number, directory)
        save(directory, step)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    if os.WIFEXITED(status):
        sys.exit(os.WEXITSTATUS(status))
"""


@pytest.mark.parametrize("step", [2, 1], ids=["a new step", "the same step again"])
def test_kill_9_before_any_change_of_the_directory_leaves_a_whole_checkpoint(tmp_path, step):
    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path), str(step)], timeout=200, check=True)
    *killed, unkilled = sorted(tmp_path.iterdir())
    assert len(killed) > 15
    for directory in killed:
        found, told = newest(directory)
        assert found, f"killed at change {directory.name}: {everything(directory)}"
        assert not told, f"killed at change {directory.name}: {told}"
        save(checkpoints(directory, keep=1), step=3)
        assert everything(directory) == ["step-000003"], f"killed at change {directory.name}"
    assert everything(unkilled) == [f"step-{step:06d}"]


FULL = """
import asyncio, resource, sys
from pathlib import Path
from rlhf_cluster.driver.checkpoints import Checkpoints
from rlhf_cluster.errors import StorageError
from rlhf_cluster.learner.group import LearnerGroup
from rlhf_cluster.testing import FakeClock, FakeLearnerRank

kept = Checkpoints(Path(sys.argv[1]), keep=1, state=lambda: {"much": "x" * 50_000}, clock=FakeClock())
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    asyncio.run(kept.save(LearnerGroup([FakeLearnerRank()]), step=2))
except StorageError as error:
    print(error)
"""


def test_a_full_disk_at_the_drivers_own_files_keeps_the_previous_one(tmp_path):
    save(checkpoints(tmp_path), step=1)
    done = subprocess.run([sys.executable, "-c", FULL, str(tmp_path)], capture_output=True, text=True, timeout=120)
    assert "step-000002 could not be written: File too large" in done.stdout, done.stderr
    assert everything(tmp_path) == ["step-000001"]
    assert newest(tmp_path) == ("step-000001", [])


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes anywhere")
def test_a_directory_that_may_not_be_written_is_a_storage_error(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(StorageError, match="Permission denied"):
        save(checkpoints(tmp_path / "checkpoints"), step=1)
