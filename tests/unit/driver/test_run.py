"""A job from its config to its one last event, with the real word-world model on the local runtime."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rlhf_cluster.config import JobConfig
from rlhf_cluster.config.load import read_job
from rlhf_cluster.driver import mailbox
from rlhf_cluster.driver.claim import Claim
from rlhf_cluster.driver.observers import journal
from rlhf_cluster.driver.observers.journal import Journal
from rlhf_cluster.driver.run import new_job_dir, run_job
from rlhf_cluster.driver.sizes import FILE_NAME
from rlhf_cluster.driver.status_file import read_view, write_view
from rlhf_cluster.errors import ConfigError, Fenced, LearnerError, LedgerCorrupt, ModelError
from rlhf_cluster.learner.rank import LearnerRank
from rlhf_cluster.records import StepReport
from rlhf_cluster.records.commands import Pause, Stop
from rlhf_cluster.records.events import CheckpointSaved, Event, JobEnded, JobStarted, Notice, StepDone, WorkerChanged
from rlhf_cluster.records.members import JobView
from rlhf_cluster.testing import FakeClock, make_job

TINY = [
    "rollout.engine.type=transformers",
    "train.num_steps=2",
    "learner.precision=fp32",
    "algorithm.keep_zero_variance=true",
]


class Watcher:
    """Notes every event, and calls `act` on each."""

    def __init__(self, act: Any = lambda event: None) -> None:
        self.events: list[Event] = []
        self.act = act

    def on_event(self, event: Event) -> None:
        self.events.append(event)
        self.act(event)

    def close(self) -> None:
        pass

    def ended(self) -> JobEnded:
        [event] = [event for event in self.events if isinstance(event, JobEnded)]
        assert event is self.events[-1]
        return event


@pytest.fixture
def job(tmp_path: Path, word_world_home: Path, monkeypatch: pytest.MonkeyPatch) -> JobConfig:
    monkeypatch.setenv("RLHF_CLUSTER_HOME", str(word_world_home))
    return make_job([*TINY, f"output_dir={tmp_path}/runs"])


def run(job: JobConfig, watcher: Watcher, *, stop: asyncio.Event | None = None, **options: Any) -> JobEnded:
    return asyncio.run(run_job(job, observers=watcher, stop=stop or asyncio.Event(), **options))


def test_a_job_that_succeeds_ends_with_its_newest_checkpoint(job):
    watcher = Watcher()
    ended = run(job, watcher)
    assert ended is watcher.ended()
    assert (ended.outcome, ended.step, ended.message) == ("succeeded", 2, "2 steps done")
    assert ended.checkpoint == ended.job_dir / "checkpoints" / "step-000002"
    assert isinstance(watcher.events[0], JobStarted)
    assert (ended.checkpoint / "model.safetensors").is_file()


def wanting(job: JobConfig, content: str) -> Path:
    """A job directory with these sizes wanted."""
    job_dir = new_job_dir(job, FakeClock())
    (job_dir / "control").mkdir()
    (job_dir / FILE_NAME).write_text(content)
    return job_dir


def test_a_job_begins_with_the_sizes_that_were_wanted_last(job):
    watcher = Watcher()
    pools = [{"role": "rollout", "num_workers": 2}, {"role": "reward", "num_workers": 1}]
    run(job, watcher, job_dir=wanting(job, json.dumps({"pools": pools})))
    serving = {e.worker_id for e in watcher.events if isinstance(e, WorkerChanged) and e.state == "serving"}
    assert serving == {"rollout-0", "rollout-1", "reward-0"}


def test_wanted_sizes_that_cannot_be_read_are_told_about_and_end_no_job(job):
    watcher = Watcher()
    assert run(job, watcher, job_dir=wanting(job, "torn{")).outcome == "succeeded"
    [notice] = [event for event in watcher.events if isinstance(event, Notice)]
    assert notice.level == "warning"
    assert notice.text.startswith("control/desired.json does not say how many workers are wanted: ")
    assert notice.text.endswith(". The job begins with the sizes of its job file")


def test_the_last_view_of_a_job_shows_nobody_at_work(job):
    view = read_view(run(job, Watcher()).job_dir)
    assert view is not None
    assert (view.state, view.step, view.num_in_flight, view.waiting_for) == ("succeeded", 2, 0, "")
    assert [(pool.role, pool.members) for pool in view.pools] == [
        ("rollout worker", ()),
        ("reward server", ()),
        ("learner", ()),
    ]


def test_a_stopped_job_is_interrupted_and_resumes(job):
    stop = asyncio.Event()
    watcher = Watcher(lambda event: stop.set() if isinstance(event, StepDone) else None)
    ended = run(job, watcher, stop=stop)
    assert (ended.outcome, ended.step) == ("interrupted", 1)
    assert ended.message == "stopped after step 1"

    again = read_job(ended.job_dir)
    assert again == job
    resumed = Watcher()
    finished = run(again, resumed, job_dir=ended.job_dir)
    assert (finished.outcome, finished.step) == ("succeeded", 2)
    assert all(event.step >= 1 for event in resumed.events), "no event goes back before the checkpoint"
    assert [event.first_step for event in resumed.events if isinstance(event, JobStarted)] == [1]


def test_a_job_stopped_before_its_first_step_holds_no_checkpoint_and_can_be_resumed(job):
    stop = asyncio.Event()
    stop.set()
    ended = run(job, Watcher(), stop=stop)
    assert (ended.outcome, ended.step, ended.checkpoint) == ("interrupted", 0, None)
    assert ended.message == "stopped after step 0"
    assert run(job, Watcher(), job_dir=ended.job_dir).outcome == "succeeded"


def test_a_job_resumed_without_its_checkpoint_learns_the_same_from_its_log(job):
    stop = asyncio.Event()
    watcher = Watcher(lambda event: stop.set() if isinstance(event, StepDone) else None)
    ended = run(job, watcher, stop=stop)
    assert ended.checkpoint
    shutil.rmtree(ended.checkpoint)
    resumed = Watcher()
    run(job, resumed, job_dir=ended.job_dir)
    assert not [event for event in resumed.events if isinstance(event, Notice)], "the replayed loss is the logged one"
    assert [event.version for event in resumed.events if isinstance(event, StepDone)] == [2]


class Killed(BaseException):
    pass


class Journalled(Watcher):
    """As the command line keeps it."""

    def on_event(self, event: Event) -> None:
        if isinstance(event, JobStarted):
            self.journal = Journal(event.job_dir)
        self.journal.on_event(event)
        super().on_event(event)


def steps_told(job_dir: Path) -> dict[int, dict[str, float]]:
    """Step -> metrics; each step once."""
    entries = [entry for entry in journal.read(job_dir) if entry["event"] == "StepDone"]
    told = {entry["step"]: entry["metrics"] for entry in entries}
    assert len(told) == len(entries)
    return told


@pytest.mark.parametrize("last", ["update", "publish", "adopt"])
def test_a_step_that_a_killed_driver_did_not_tell_is_told_once_by_the_next(job, last):
    whole = steps_told(run(job, Journalled()).job_dir)
    seen: list[str] = []

    def at(transition: str) -> None:
        seen.append(transition)
        if seen.count("accept") == 2 and transition == last:
            raise Killed

    killed = Journalled()
    with pytest.raises(Killed):
        run(job, killed, at=at)
    job_dir = killed.ended().job_dir
    assert list(steps_told(job_dir)) == [1]
    run(job, Journalled(), job_dir=job_dir)
    told = steps_told(job_dir)
    assert list(told) == [1, 2]
    for name in ("learner/loss", "reward/mean", "rollout/completion_length_mean", "driver/batch_tokens"):
        assert told[2][name] == whole[2][name], name


def test_of_a_step_that_a_checkpoint_holds_and_a_crashed_disk_forgot_the_batch_is_told(job):
    job_dir = run(job, Journalled()).job_dir
    whole = steps_told(job_dir)
    path = job_dir / "journal.jsonl"
    path.write_text("".join(line for line in path.read_text().splitlines(True) if '"step": 2' not in line))
    assert list(steps_told(job_dir)) == [1]
    run(job, Journalled(), job_dir=job_dir)
    told = steps_told(job_dir)
    assert list(told) == [1, 2]
    assert told[2]["reward/mean"] == whole[2]["reward/mean"]
    assert "learner/loss" not in told[2]


def test_a_job_whose_ledger_is_gone_is_refused_and_not_silently_begun_anew(job):
    ended = run(job, Watcher())
    shutil.rmtree(ended.job_dir / "ledger")
    with pytest.raises(LedgerCorrupt, match=r"a checkpoint of step 2 and a ledger of 0 steps"):
        run(job, Watcher(), job_dir=ended.job_dir)


def test_a_job_that_is_done_is_resumed_and_succeeds_at_once(job):
    ended = run(job, Watcher())
    again = Watcher()
    assert run(job, again, job_dir=ended.job_dir).outcome == "succeeded"
    assert not [event for event in again.events if isinstance(event, StepDone)]


def test_a_job_that_fails_tells_its_error_and_raises_it(job, monkeypatch):
    def explode(*_: Any) -> None:
        raise LearnerError("step 0: the loss is nan; the step was not applied")

    monkeypatch.setattr("rlhf_cluster.learner.rank.LearnerRank.update", explode)
    watcher = Watcher()
    with pytest.raises(LearnerError, match="the loss is nan"):
        run(job, watcher)
    assert watcher.ended().outcome == "failed"
    assert watcher.ended().message == "step 0: the loss is nan; the step was not applied"


def test_a_job_that_a_guard_stops_has_failed_in_order_and_says_why(job, monkeypatch):
    update = LearnerRank.update

    def runs_away(*arguments: Any) -> StepReport:
        report = update(*arguments)
        return replace(report, metrics={**report.metrics, "learner/kl": 9.0})

    monkeypatch.setattr(LearnerRank, "update", runs_away)
    guards = job.guards.model_copy(update={"kl_steps": 1})
    ended = run(job.model_copy(update={"guards": guards}), Watcher())
    assert (ended.outcome, ended.step) == ("failed", 1)
    assert ended.message.startswith("stopped after step 1 by the guard kl_runaway: the KL to the reference was above")
    assert ended.checkpoint == ended.job_dir / "checkpoints" / "step-000001"
    assert read_view(ended.job_dir).phase == ended.message


def test_a_disk_that_refuses_the_last_words_does_not_hide_what_failed(job, monkeypatch):
    def explode(*_: Any) -> None:
        raise LearnerError("step 0: the loss is nan; the step was not applied")

    def refuse(event: Event) -> None:
        if isinstance(event, JobEnded):
            assert (event.job_dir / "status.json").is_file()
            for name in ("status.json", "epochs/000001.json"):
                path = event.job_dir / name
                path.with_name(f".{path.name}.{os.getpid()}").mkdir()

    monkeypatch.setattr("rlhf_cluster.learner.rank.LearnerRank.update", explode)
    with pytest.raises(LearnerError, match="the loss is nan"):
        run(job, Watcher(refuse))


def test_a_model_that_is_none_fails_before_any_role_starts(job):
    watcher = Watcher()
    with pytest.raises(ModelError, match="nowhere"):
        run(job.model_copy(update={"model": "nowhere"}), watcher)
    assert watcher.ended().outcome == "failed"
    assert not any(isinstance(event, StepDone | CheckpointSaved) for event in watcher.events)


def test_an_aborted_job_is_interrupted_and_leaves_no_task(job):
    async def abort() -> Watcher:
        watcher = Watcher()
        task = asyncio.create_task(run_job(job, observers=watcher, stop=asyncio.Event()))
        watcher.act = lambda event: task.cancel() if isinstance(event, StepDone) else None
        with pytest.raises(asyncio.CancelledError):
            await task
        assert asyncio.all_tasks() == {asyncio.current_task()}
        return watcher

    ended = asyncio.run(abort()).ended()
    assert ended.outcome == "interrupted"
    assert ended.message == "aborted"
    assert run(job, Watcher(), job_dir=ended.job_dir).outcome == "succeeded"


def test_a_paused_driver_that_is_taken_over_from_ends_and_leaves_the_other_ones_status(job):
    async def story() -> JobView | None:
        watcher, stepped = Watcher(), asyncio.Event()
        watcher.act = lambda event: stepped.set() if isinstance(event, StepDone) else None
        running = asyncio.create_task(run_job(job, observers=watcher, stop=asyncio.Event()))
        await stepped.wait()
        job_dir = watcher.events[0].job_dir
        asked = mailbox.post(job_dir, Pause())
        assert await asyncio.to_thread(mailbox.answer, job_dir, asked, within_s=60)
        view = read_view(job_dir)
        assert view is not None
        successor = Claim.take(job_dir, take_over=True)
        write_view(job_dir, replace(view, epoch=successor.epoch, state="running"))
        stop = mailbox.post(job_dir, Stop())
        with pytest.raises(Fenced):
            await asyncio.wait_for(running, 60)
        assert mailbox.answer(job_dir, stop) is None, "it is for the other driver"
        return read_view(job_dir)

    job = job.model_copy(update={"train": job.train.model_copy(update={"num_steps": 1000})})
    view = asyncio.run(story())
    assert view is not None
    assert (view.epoch, view.state) == (2, "running")


def test_job_directories_are_numbered_and_hold_the_whole_config(tmp_path):
    job = make_job([f"output_dir={tmp_path}"])
    assert [new_job_dir(job, FakeClock()).name for _ in range(2)] == ["test-1", "test-2"]
    assert json.loads((tmp_path / "test-2" / "job.json").read_text())["train"]["num_steps"] == 2


def test_a_directory_that_holds_no_job_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"is no job directory: it holds no job\.json"):
        read_job(tmp_path)


def test_a_job_that_never_ran_can_be_resumed_from_its_beginning(tmp_path):
    job = make_job([f"output_dir={tmp_path}"])
    assert read_job(new_job_dir(job, FakeClock())) == job
