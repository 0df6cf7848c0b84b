"""What a relay tells is taken in once, by the current attempt alone, all or nothing."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf_cluster.records.members import JobView
from rlhf_cluster.service.ingest import take_answer, take_end, take_in, take_start, with_pools
from rlhf_cluster.service.problems import ApiProblem
from rlhf_cluster.service.store import attempts, checkpoints, commands, events, jobs, logs, metrics, pools
from rlhf_cluster.service.store.database import Database
from rlhf_cluster.testing.jobs import make_job
from rlhf_cluster.wire.relay import Answered, Ended, Ingest, LogLine

VIEW = JobView(
    time_s=1.0, epoch=1, job_name="test", state="running", phase="training", step=2, num_steps=9, num_in_flight=1,
    num_complete=0, waiting_for="", bottleneck="", pools=(),
)  # fmt: skip
ENDED = Ended(outcome="failed", exit_code=-9, message="killed", may_be_retried=True, last_lines=["bye"])


def as_sent(view: JobView) -> dict[str, Any]:
    return json.loads(json.dumps(dataclasses.asdict(view)))


class Stage:
    """A job with one attempt that has registered."""

    def __init__(self, path: Path, *overrides: str) -> None:
        self.db = Database(f"sqlite:///{path}")
        self.db.migrate()
        self.job = make_job(overrides)
        self.config = json.loads(self.job.model_dump_json())
        with self.db.writing() as connection:
            row = jobs.add(
                connection, name="a", owner="ada", labels={}, notes="", source="", config=self.config, num_steps=9,
                max_attempts=3, bundle_sha256=None, now_s=1.0,
            )  # fmt: skip
            self.job_id = row.job_id
            pools.ensure(connection, self.job_id, self.job)
        self.attempt = self.begin()

    def begin(self) -> Any:
        with self.db.writing() as connection:
            number = len(attempts.of_job(connection, self.job_id)) + 1
            attempts.add(connection, self.job_id, number, submission_id="s", now_s=1.0)
            attempts.register(connection, self.job_id, number, host="h", process_id=1, lease_until_s=45.0)
            return attempts.newest(connection, self.job_id)

    def send(
        self, first_entry: int = 0, entries: Any = (), attempt: Any = None, now_s: float = 10.0, **more: Any
    ) -> int:
        news = Ingest(first_entry=first_entry, entries=list(entries), **more)
        with self.db.writing() as connection:
            return take_in(connection, attempt or self.attempt, news, now_s=now_s, lease_s=45.0)

    def look(self, read: Any, *arguments: Any, **options: Any) -> Any:
        with self.db.reading() as connection:
            return read(connection, *arguments, **options)

    @property
    def row(self) -> Any:
        return self.look(jobs.get, self.job_id)

    def kinds(self) -> list[str]:
        return [row.kind for row in self.look(events.after, 0, job_id=self.job_id)]


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    made = Stage(tmp_path / "service.db")
    yield made
    made.db.close()


def step(number: int, reward: float | None = 0.5) -> dict[str, Any]:
    metrics = {"reward/mean": reward, "learner/loss": 1.0}
    return {"event": "StepDone", "time_s": 5.0, "step": number, "version": number, "metrics": metrics}


def test_entries_become_events_metrics_and_checkpoints(stage: Stage):
    saved = {"event": "CheckpointSaved", "time_s": 6.0, "step": 2, "path": "/x/step-000002"}
    assert stage.send(0, [step(1), step(2, None), saved]) == 3
    assert stage.kinds() == ["StepDone", "StepDone", "CheckpointSaved"]
    [series] = stage.look(metrics.series, stage.job_id, ["reward/mean"])
    assert (series.steps, series.values) == ([1, 2], [0.5, None])
    assert [(row.step, row.path) for row in stage.look(checkpoints.of_job, stage.job_id)] == [(2, "/x/step-000002")]


def test_a_job_that_generates_has_its_figures_by_the_prompts_that_are_done(stage: Stage):
    generated = {"event": "Generated", "time_s": 5.0, "step": 0, "task": "preferences", "num_total": 40}
    entries = [{**generated, "num_done": n, "metrics": {"preferences/num_pairs": n - 1}} for n in (20, 40)]
    stage.send(0, entries, view=as_sent(dataclasses.replace(VIEW, step=40, num_steps=40, unit="prompts")))
    [series] = stage.look(metrics.series, stage.job_id, ["preferences/num_pairs"])
    assert (series.steps, series.values) == ([20, 40], [19, 39])
    assert (stage.row.step, stage.row.num_steps) == (40, 40)


def test_a_message_that_comes_twice_changes_nothing(stage: Stage):
    for _ in range(2):
        lines = [LogLine(component="driver", offset=0, line="hello", time_s=1.0)]
        assert stage.send(0, [step(1), step(2)], lines=lines) == 2
    assert stage.kinds() == ["StepDone", "StepDone"]
    assert [row.line for row in stage.look(logs.page, stage.job_id, limit=10)] == ["hello"]


def test_entries_beyond_a_gap_are_not_taken_and_the_relay_is_told_where_to_go_on(stage: Stage):
    assert stage.send(3, [step(4)]) == 0
    assert stage.kinds() == []


@given(data=st.data())
def test_whatever_is_sent_again_every_entry_is_taken_once_and_in_order(tmp_path_factory, data):
    stage = Stage(tmp_path_factory.mktemp("db") / "service.db")
    journal = [step(number) for number in range(1, 13)]
    known = 0
    for _ in range(data.draw(st.integers(0, 6))):
        first = data.draw(st.integers(0, len(journal)))
        known = stage.send(first, journal[first : first + data.draw(st.integers(0, 12))])
    stage.send(known, journal[known:])
    assert [row.step for row in stage.look(events.after, 0, job_id=stage.job_id)] == list(range(1, 13))
    stage.db.close()


def test_a_former_attempt_may_not_write_and_leaves_nothing(stage: Stage):
    stage.begin()
    with pytest.raises(ApiProblem) as refused:
        stage.send(0, [step(1)], view=as_sent(VIEW))
    assert (refused.value.status, refused.value.code) == (409, "superseded")
    assert (stage.kinds(), stage.row.num_entries, stage.row.view) == ([], 0, None)


def test_an_attempt_that_was_given_up_may_not_write(stage: Stage):
    with stage.db.writing() as connection:
        attempts.lose(connection, stage.job_id, 1, message="silent", now_s=5.0)
    with pytest.raises(ApiProblem):
        stage.send()


def test_a_message_without_news_renews_the_lease(stage: Stage):
    stage.send(now_s=100.0)
    assert stage.look(attempts.newest, stage.job_id).lease_until_s == 145.0


@pytest.mark.parametrize("state", ["running", "paused", "stopping"])
def test_the_view_says_how_the_job_is(stage: Stage, state: str):
    stage.send(view=as_sent(dataclasses.replace(VIEW, state=state)))
    assert (stage.row.state, stage.row.step, stage.row.view["phase"]) == (state, 2, "training")


@pytest.mark.parametrize("state", ["succeeded", "failed", "interrupted", "starting"])
def test_a_view_does_not_end_the_job(stage: Stage, state: str):
    stage.send(view=as_sent(dataclasses.replace(VIEW, state=state)))
    assert stage.row.state == "queued"


def test_a_job_that_is_to_be_cancelled_stays_stopping_whatever_its_driver_says(stage: Stage):
    with stage.db.writing() as connection:
        jobs.want(connection, stage.job_id, "cancel", now_s=5.0)
        jobs.set_state(connection, stage.job_id, "stopping", message="", now_s=5.0)
    stage.send(view=as_sent(VIEW))
    assert stage.row.state == "stopping"


def test_a_view_that_is_none_is_refused_with_all_that_came_with_it(stage: Stage):
    with pytest.raises(ApiProblem, match="step"):
        stage.send(0, [step(1)], view={**as_sent(VIEW), "step": "two"})
    assert (stage.kinds(), stage.row.num_entries) == ([], 0)


def test_metrics_that_are_no_numbers_are_left_out(stage: Stage):
    stage.send(0, [{**step(1), "metrics": {"a": 1, "b": "many", "c": True, "d": None}}, {**step(2), "metrics": 3}])
    assert stage.look(metrics.keys, stage.job_id) == ["a", "d"]


def test_a_metric_whose_name_no_database_takes_stops_nothing(stage: Stage):
    assert stage.send(0, [{**step(1), "metrics": {"a\0b": 1.0}}]) == 1
    assert stage.look(metrics.keys, stage.job_id) == ["a\ufffdb"]


def ask(stage: Stage, role: str, replicas: int) -> str:
    with stage.db.writing() as connection:
        row = pools.get(connection, stage.job_id, role)
        pools.want(
            connection, stage.job_id, role, generation=row.generation, mode="manual", replicas=replicas,
            min_replicas=None, max_replicas=None,
        )  # fmt: skip
        body = {"command": "Scale", "role": role, "num_workers": replicas}
        return commands.add(connection, stage.job_id, body, created_by="ada", now_s=float(row.generation)).command_id


def answer(stage: Stage, command_id: str, *, ok: bool, text: str = "done") -> None:
    with stage.db.writing() as connection:
        take_answer(connection, stage.attempt, command_id, Answered(ok=ok, text=text), now_s=20.0)


def test_the_answer_to_the_newest_wish_says_that_it_is_obeyed(stage: Stage):
    older, newer = ask(stage, "rollout", 2), ask(stage, "rollout", 3)
    answer(stage, older, ok=True)
    assert stage.look(pools.get, stage.job_id, "rollout").observed_generation == 1
    answer(stage, newer, ok=True)
    assert stage.look(pools.get, stage.job_id, "rollout").observed_generation == 3


def test_a_refusal_is_kept_and_obeys_nothing_and_counts_once(stage: Stage):
    command_id = ask(stage, "rollout", 2)
    answer(stage, command_id, ok=False, text="autoscale sets it")
    answer(stage, command_id, ok=True)
    row = stage.look(commands.get, command_id)
    assert (row.state, row.answer) == ("refused", "autoscale sets it")
    assert stage.look(pools.get, stage.job_id, "rollout").observed_generation == 1
    assert stage.kinds() == ["CommandAnswered"]


def test_a_command_of_another_job_is_not_found(stage: Stage):
    with pytest.raises(ApiProblem) as refused:
        answer(stage, "cmd_of_nobody", ok=True)
    assert refused.value.status == 404


def test_an_attempt_that_starts_obeys_what_is_wanted_of_the_pools(stage: Stage):
    ask(stage, "rollout", 5)
    with stage.db.writing() as connection:
        take_start(connection, stage.attempt, host="h", process_id=7, now_s=20.0)
    rows = stage.look(pools.of_job, stage.job_id)
    assert all(row.observed_generation == row.generation for row in rows)
    assert with_pools(stage.config, rows) == {
        **stage.config,
        "rollout": {**stage.config["rollout"], "num_workers": 5},
    }


def test_a_pool_that_a_policy_sizes_goes_on_within_its_bounds(stage: Stage):
    with stage.db.writing() as connection:
        pools.want(
            connection,
            stage.job_id,
            "rollout",
            generation=1,
            mode="auto",
            replicas=None,
            min_replicas=2,
            max_replicas=4,
        )
    config = with_pools(stage.config, stage.look(pools.of_job, stage.job_id))
    assert config["autoscale"] == {"min_workers": 2, "max_workers": 4}
    assert config["rollout"]["num_workers"] == 2


def test_how_an_attempt_ended_is_kept_once_with_its_last_lines(stage: Stage):
    with stage.db.writing() as connection:
        take_end(connection, stage.attempt, ENDED, now_s=30.0)
    row = stage.look(attempts.newest, stage.job_id)
    assert (row.state, row.outcome, row.exit_code, row.message) == ("ended", "failed", -9, "killed")
    [event] = stage.look(events.after, 0, job_id=stage.job_id)
    assert (event.kind, event.level, event.body["last_lines"]) == ("AttemptEnded", "error", ["bye"])
    with pytest.raises(ApiProblem), stage.db.writing() as connection:
        take_end(connection, stage.attempt, ENDED, now_s=31.0)
