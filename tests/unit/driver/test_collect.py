"""Collecting pairs: labels by rule, judge or nobody, failures that are no preferences, and going on after a stop."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from rlhf_cluster.config.generation import PreferenceSettings
from rlhf_cluster.data.preference_files import read_preferences
from rlhf_cluster.data.recordings import recording_of
from rlhf_cluster.data.settings import JsonlSource
from rlhf_cluster.data.sources import read_rows
from rlhf_cluster.driver import workbench
from rlhf_cluster.driver.collect import PreferenceCollector
from rlhf_cluster.driver.workbench import Workbench
from rlhf_cluster.errors import ConfigError, RoleDied, TooManyInvalid
from rlhf_cluster.records import RolloutGroup
from rlhf_cluster.records.events import Generated, PromptQuarantined, RewardFailed
from rlhf_cluster.rewards.sample import Failure, Outcome
from rlhf_cluster.testing import FakeRewardServer, fake_roles, make_job
from rlhf_cluster.testing.faults import FaultPlan
from rlhf_cluster.testing.faulty_roles import with_faults
from rlhf_cluster.testing.fleet import SimulatedRuntime

NUM_ROWS = 7


def bench_of(made: Any, driver: Any) -> Workbench:
    return Workbench(
        job=made.job,
        job_dir=made.job_dir,
        prompts=made.prompts.train,
        sampler=driver.evaluator.sampler,
        scoring=driver.evaluator.scoring,
        fleet=driver.fleet,
        emit=made.events.append,
        clock=made.clock,
        step=0,
    )


def collect(made: Any, *, stop: asyncio.Event | None = None, **settings: Any) -> list[dict[str, Any]]:
    """The rows of the file, and the job's events in `made.events`."""

    async def act(driver: Any, roles: Any) -> None:
        await made.serve(driver)
        collector = PreferenceCollector(bench_of(made, driver), PreferenceSettings.model_validate(settings))
        await collector.run(stop or asyncio.Event())

    made.play(act)
    return rows_of(made.job_dir)


def rows_of(job_dir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (job_dir / "preferences.jsonl").read_text().splitlines()]


def without_time(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**row, "time_s": 0} for row in rows]


def test_the_file_is_read_back_as_preferences_and_learned_from_as_it_is(stage):
    made = stage(make_job())
    rows = collect(made)
    path = made.job_dir / "preferences.jsonl"
    preferences = read_preferences(path)
    assert [preference.columns() for preference in preferences] == rows
    recordings = [recording_of(row) for row in read_rows(JsonlSource(path=path))]
    assert [each.completions for each in recordings] == [(row["chosen"], row["rejected"]) for row in rows]


def last_metrics(made: Any) -> dict[str, float]:
    return dict(made.seen(Generated)[-1].metrics)


def test_every_row_gets_a_pair_and_the_larger_reward_is_chosen(stage):
    made = stage(make_job())
    rows = collect(made)
    assert sorted(row["prompt_id"] for row in rows) == [f"{number}/0" for number in range(NUM_ROWS)]
    for row in rows:
        assert row["label"] == "b", "the second completion is worth 1, the first 0"
        assert (row["chosen"], row["rejected"]) == (row["completion_b"], row["completion_a"])
        assert row["prompt"] == f"prompt {row['prompt_id'].split('/')[0]}"
        assert (row["score_a"], row["score_b"], row["tie"]) == (0.0, 1.0, False)
    assert last_metrics(made)["preferences/num_pairs"] == NUM_ROWS
    assert last_metrics(made)["preferences/label_ceiling"] == 1.0


def test_provenance_says_which_policy_drew_the_pair_and_how(stage):
    made = stage(make_job())
    [row, *_] = collect(made, temperature=0.7, num_pairs=1)
    provenance = row["provenance"]
    assert (provenance["job"], provenance["model"], provenance["weight_version"]) == ("test", "word-world", 0)
    assert provenance["sampling"]["temperature"] == 0.7
    assert (row["kind"], row["labeler"], provenance["labels"]) == ("rule", "rewards", "rule")
    assert len(provenance["weight_fingerprint"]) >= 16


def test_more_pairs_than_rows_take_another_epoch(stage):
    rows = collect(stage(make_job()), num_pairs=10)
    assert sum(row["prompt_id"].endswith("/1") for row in rows) == 3


def test_noisy_labels_follow_the_seed_and_tell_their_ceiling(stage):
    made = stage(make_job())
    rows = collect(made, noise_scale=0.1, num_pairs=60)
    again = collect(stage(make_job(), job_dir=made.job_dir / "again"), noise_scale=0.1, num_pairs=60)
    assert [row["label"] for row in again] == [row["label"] for row in rows]
    assert {row["label"] for row in rows} == {"a", "b"}, "a gap of 1 at scale 0.1 decides little"
    assert last_metrics(made)["preferences/label_ceiling"] == pytest.approx(0.525, abs=1e-3)


def test_equal_rewards_are_a_tie(stage):
    rows = collect(stage(make_job(), fake_roles(reward=FakeRewardServer(lambda group: [1.0, 1.0]))))
    assert {(row["label"], row["tie"], row["p_a"]) for row in rows} == {("tie", True, 0.5)}


def test_identical_completions_are_counted_and_not_kept(stage):
    made = stage(make_job(["rollout.max_new_tokens=1"]))
    rows = collect(made, num_pairs=40)
    metrics = last_metrics(made)
    assert 0 < metrics["preferences/num_identical"] < 40
    assert len(rows) + metrics["preferences/num_identical"] == 40
    assert all(row["completion_a"] != row["completion_b"] for row in rows)


def test_without_labels_people_get_both_completions_and_no_preference(stage):
    [row, *_] = collect(stage(make_job()), labels="none")
    assert (row["label"], row["chosen"], row["rejected"], row["labeler"]) == (None, None, None, None)
    assert "p_a" not in row
    assert row["completion_a"]
    assert row["completion_b"]


def test_a_failed_reward_is_no_preference_and_too_many_end_the_job(stage):
    lost = Failure(kind="raised", message="no")
    reward = FakeRewardServer(lambda group: [0.0, 1.0] if "3" in group.prompt.text else [lost, 1.0])
    made = stage(make_job(["reward_server.invalid_window=100"]), fake_roles(reward=reward))
    rows = collect(made)
    assert [row["prompt_id"] for row in rows] == ["3/0"]
    assert len(made.seen(RewardFailed)) == NUM_ROWS - 1
    with pytest.raises(TooManyInvalid, match="reward 'fake' failed"):
        collect(stage(made.job, fake_roles(reward=reward), job_dir=made.job_dir / "more"), num_pairs=40)


def test_a_prompt_that_workers_die_of_is_left_out_and_the_others_are_kept(stage):
    plan = FaultPlan(seed=0, poison={"2/0"})
    job = make_job(["rollout.num_workers=2", "recovery.max_restarts=30"])
    made = stage(job, SimulatedRuntime(wrap=with_faults(plan)))
    assert {row["prompt_id"] for row in collect(made)} == {f"{number}/0" for number in (0, 1, 3, 4, 5, 6)}
    assert [event.prompt_id for event in made.seen(PromptQuarantined)] == ["2/0"]


def test_a_prompt_that_reward_servers_die_of_is_left_out_and_the_others_are_kept(stage):
    def dies_of_prompt_2(group: RolloutGroup) -> list[Outcome]:
        if "2" in group.prompt.text:
            raise RoleDied("gone")
        return [0.0, 1.0]

    def another(spec: Any) -> FakeRewardServer:
        return FakeRewardServer(dies_of_prompt_2, worker_id=spec.worker_id)

    job = make_job(["recovery.max_restarts=30", "recovery.backoff_s=0"])
    made = stage(job, fake_roles(reward=FakeRewardServer(dies_of_prompt_2), replace=another))
    assert {row["prompt_id"] for row in collect(made)} == {f"{number}/0" for number in (0, 1, 3, 4, 5, 6)}
    assert [event.prompt_id for event in made.seen(PromptQuarantined)] == ["2/0"]


@pytest.mark.parametrize("torn", [b"", b'{"prompt_id": "4/0", "chos'])
def test_a_job_that_was_stopped_goes_on_and_ends_with_the_rows_it_would_have_had(stage, monkeypatch, torn):
    monkeypatch.setattr(workbench, "BLOCK", 2)
    whole = collect(stage(make_job()), num_pairs=12, noise_scale=1.0)
    stopped = asyncio.Event()
    stopped.set()
    directory = stage(make_job()).job_dir / "stopped"
    first = collect(stage(make_job(), job_dir=directory), stop=stopped, num_pairs=12, noise_scale=1.0)
    assert 0 < len(first) < 12, "the block at hand was written, and no more"
    with (directory / "preferences.jsonl").open("ab") as file:
        file.write(torn)
    made = stage(make_job(), job_dir=directory)
    assert without_time(collect(made, num_pairs=12, noise_scale=1.0)) == without_time(whole)
    assert made.seen(Generated)[-1].num_done == 12
    assert last_metrics(made)["preferences/num_pairs"] == 12


def test_a_judge_labels_and_its_verdict_stands_in_the_row(stage):
    judge = {"type": "rule", "function": "overlong", "args": {"max_tokens": 8, "margin_tokens": 8}, "scale": 2}
    made = stage(make_job())
    rows = collect(made, labels="judge", judge=judge, num_pairs=40)
    assert {row["label"] for row in rows} == {"a", "b", "tie"}
    for row in rows:
        longer = row["num_tokens"][1] - row["num_tokens"][0]
        assert row["label"] == ("tie" if longer == 0 else "a" if longer > 0 else "b")
        assert (row["kind"], row["labeler"]) == ("judge", "rule:overlong")
        assert "against" in row["reason"]


@pytest.mark.parametrize(
    "settings",
    [
        {"labels": "judge"},
        {"labels": "rule", "judge": {"type": "rule", "function": "word_world"}},
        {"labels": "none", "noise_scale": 1.0},
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings):
    with pytest.raises((ConfigError, ValueError), match="labels = "):
        PreferenceSettings.model_validate(settings)
