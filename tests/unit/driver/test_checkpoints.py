"""Checkpoints are complete or absent, whenever the process dies, and only the newest stay."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

from rlhf_cluster.driver.checkpoints import STATE_FILE, Checkpoints, read_state
from rlhf_cluster.learner.group import LearnerGroup
from rlhf_cluster.testing import FakeClock, FakeLearnerRank


class PowerCut(BaseException):
    """The process is gone: nothing after it runs."""


def checkpoints(directory: Path, *, keep: int = 2) -> Checkpoints:
    return Checkpoints(directory, keep=keep, state=lambda: {"next_request_id": 7}, clock=FakeClock(3.0))


def save(kept: Checkpoints, *, step: int, rank: FakeLearnerRank | None = None):
    return asyncio.run(kept.save(LearnerGroup([rank or FakeLearnerRank()]), step=step))


def visible(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.glob("[!.]*"))


def test_a_checkpoint_holds_the_policy_and_the_drivers_state(tmp_path):
    event = save(checkpoints(tmp_path), step=12)
    assert (event.step, event.path, event.time_s) == (12, tmp_path / "step-000012", 3.0)
    assert read_state(event.path) == {"step": 12, "next_request_id": 7}
    assert (event.path / "version").read_text() == "0"


def test_only_the_newest_are_kept(tmp_path):
    kept = checkpoints(tmp_path, keep=2)
    for step in (1, 2, 10, 100):
        save(kept, step=step)
    assert visible(tmp_path) == ["step-000010", "step-000100"]
    assert [path.name for path in kept.saved()] == ["step-000010", "step-000100"]


def test_a_crash_while_the_learner_writes_leaves_no_checkpoint(tmp_path):
    class Dies(FakeLearnerRank):
        async def save(self, path, *, with_state):
            (path / "half").write_text("")
            raise PowerCut

    with pytest.raises(PowerCut):
        save(checkpoints(tmp_path), step=1, rank=Dies())
    assert visible(tmp_path) == []


def test_a_crash_just_before_the_rename_leaves_no_checkpoint_and_the_next_save_cleans_up(tmp_path, monkeypatch):
    def power_cut(self: Path, target: Path) -> None:
        raise PowerCut

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", power_cut)
        with pytest.raises(PowerCut):
            save(checkpoints(tmp_path), step=1)
    assert visible(tmp_path) == []
    assert list(tmp_path.iterdir()), "it was being written"
    save(checkpoints(tmp_path), step=2)
    assert [path.name for path in tmp_path.iterdir()] == ["step-000002"]


def test_a_crash_while_an_old_one_is_deleted_leaves_only_complete_ones(tmp_path, monkeypatch):
    def power_cut(path: Path, **_: object) -> None:
        (path / STATE_FILE).unlink()
        raise PowerCut

    kept = checkpoints(tmp_path, keep=1)
    save(kept, step=1)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", power_cut)
        with pytest.raises(PowerCut):
            save(kept, step=2)
    assert visible(tmp_path) == ["step-000002"]


def test_a_step_saved_again_replaces_the_first_one(tmp_path):
    kept = checkpoints(tmp_path)
    rank = FakeLearnerRank()
    save(kept, step=4, rank=rank)
    rank.version = 9
    again = save(kept, step=4, rank=rank)
    assert (again.path / "version").read_text() == "9"
    assert [path.name for path in tmp_path.iterdir()] == ["step-000004"]
