"""Stages run in order, once; after a change those run again that it reaches; what stopped goes on."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from rlhf_cluster.driver.claim import Claim
from rlhf_cluster.errors import ConfigError, Interrupted, StageFailed, StorageError
from rlhf_cluster.pipeline import content
from rlhf_cluster.pipeline.load import load_pipelines
from rlhf_cluster.pipeline.run import Progress, run_pipeline
from rlhf_cluster.pipeline.state import FILE_NAME, Making, read_state
from rlhf_cluster.pipeline.survey import survey
from rlhf_cluster.testing.pipelines import WEIGHTS, FakeJobs, save_stand_in_model, stage_table, write_pipeline


class Bench:
    """A pipeline of three stages, sft -> (left, right), and the jobs that run it."""

    def __init__(self, directory: Path) -> None:
        self.model = save_stand_in_model(directory / "base")
        self.stages: dict[str, Any] = {
            "sft": stage_table(str(self.model)),
            "left": stage_table("{sft.model}", reference__model="{sft.model}"),
            "right": stage_table("{sft.model}"),
        }
        self.directory = directory
        self.jobs = FakeJobs()
        self.told: list[Progress] = []

    def load(self, *overrides: str):
        return load_pipelines(write_pipeline(self.directory / "tiny.yaml", self.stages), overrides)[0]

    def run(self, *overrides: str, **options: Any) -> dict[str, Making]:
        self.jobs.ran.clear()
        self.told.clear()
        return run_pipeline(self.load(*overrides), runner=self.jobs, tell=self.told.append, **options)

    def plan(self, *overrides: str, **options: Any) -> dict[str, tuple[str, tuple[str, ...]]]:
        pipeline = self.load(*overrides)
        state = read_state(pipeline.directory, pipeline="tiny", seed=0)
        return {each.stage: (each.act, each.reasons) for each in survey(pipeline, state, **options)}

    @property
    def home(self) -> Path:
        return self.directory / "runs" / "tiny"


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_every_stage_runs_once_and_gets_the_outputs_of_those_before_it(bench):
    made = bench.run()
    assert bench.jobs.ran == ["sft-1", "left-1", "right-1"]
    model = bench.home / "sft-1" / "checkpoints" / "step-000002"
    job = json.loads((bench.home / "left-1" / "job.json").read_text())
    assert (job["model"], job["reference"]["model"], job["name"]) == (str(model), str(model), "left")
    assert made["sft"].outputs["model"].path == "checkpoints/step-000002"
    assert [progress.decision.reasons for progress in bench.told] == [("never run",)] * 3


def test_what_is_unchanged_is_not_run_again(bench):
    first = bench.run()
    assert bench.run() == first
    assert bench.jobs.ran == []
    assert {act for act, _ in bench.plan().values()} == {"keep"}


def test_a_changed_stage_and_those_that_need_it_run_in_new_directories_and_the_old_ones_stay(bench):
    bench.run()
    assert bench.plan("sft.train.num_steps=3") == {
        "sft": ("run", ("changed: train.num_steps (2 -> 3)",)),
        "left": (
            "perhaps",
            ("model: {sft.model} is made anew", "reference.model: {sft.model} is made anew"),
        ),
        "right": ("perhaps", ("model: {sft.model} is made anew",)),
    }
    bench.run("sft.train.num_steps=3")
    assert bench.jobs.ran == ["sft-2", "left-2", "right-2"]
    assert (bench.home / "sft-1" / "checkpoints" / "step-000002").is_dir()
    assert bench.told[2].decision.reasons == ("changed: what model names ({sft.model})",)


def test_a_change_of_one_branch_leaves_the_others_alone(bench):
    bench.run()
    bench.run("right.train.num_steps=5")
    assert bench.jobs.ran == ["right-2"]


def test_settings_that_come_back_find_what_they_made(bench):
    first = bench.run()
    bench.run("sft.train.num_steps=3")
    assert bench.run() == first
    assert bench.jobs.ran == []


def test_a_stage_that_comes_out_as_before_spares_those_after_it(bench):
    bench.run()
    assert bench.plan("sft.train.max_staleness=1")["left"][0] == "perhaps"
    bench.run("sft.train.max_staleness=1")  # which the fake jobs do not look at
    assert bench.jobs.ran == ["sft-2"]


def test_new_content_of_an_input_is_a_change(bench):
    bench.run()
    (bench.model / WEIGHTS).write_text("other")
    assert bench.plan()["sft"] == ("run", (f"changed: what model names ({bench.model})",))
    bench.run()
    assert bench.jobs.ran == ["sft-2", "left-2", "right-2"]


def test_an_output_that_is_gone_or_changed_is_made_again(bench):
    bench.run()
    model = bench.home / "right-1" / "checkpoints" / "step-000002"
    shutil.rmtree(model)
    assert bench.plan()["right"] == ("run", (f"its model is gone: {model}",))
    bench.run()
    assert bench.jobs.ran == ["right-2"]


def test_other_code_runs_everything_again_unless_it_is_ignored(bench, monkeypatch):
    bench.run()
    monkeypatch.setattr(content, "_our_code", lambda: "other")
    assert bench.plan()["sft"] == ("run", ("changed: the code of rlhf_cluster",))
    assert {act for act, _ in bench.plan(ignore_code=True).values()} == {"keep"}
    bench.run(ignore_code=True)
    assert bench.jobs.ran == []


def test_a_failed_stage_goes_on_in_its_directory_and_those_before_it_are_kept(bench):
    bench.jobs.exit_codes["left"] = 1
    with pytest.raises(StageFailed, match=r"stage left failed \(exit code 1\): .*left-1\. Run the pipeline again"):
        bench.run()
    assert bench.jobs.ran == ["sft-1", "left-1"]
    assert bench.plan()["left"] == ("resume", ("failed: exit code 1",))
    made = bench.run()
    assert bench.jobs.ran == ["left-1", "right-1"]
    assert (made["left"].status, made["left"].message) == ("succeeded", "")


def test_a_stage_that_a_signal_ended_is_told_as_such(bench):
    bench.jobs.exit_codes["sft"] = -9
    with pytest.raises(StageFailed, match="ended by signal 9"):
        bench.run()


def test_a_stopped_stage_goes_on(bench):
    bench.jobs.exit_codes["right"] = 130
    with pytest.raises(Interrupted, match=r"stopped in stage right: .*right-1; run the pipeline again"):
        bench.run()
    assert bench.plan()["right"] == ("resume", ("was interrupted",))
    bench.run()
    assert bench.jobs.ran == ["right-1"]


def test_a_stopped_stage_with_other_settings_begins_anew(bench):
    bench.jobs.exit_codes["sft"] = 130
    with pytest.raises(Interrupted):
        bench.run()
    bench.run("sft.train.num_steps=3")
    assert bench.jobs.ran[0] == "sft-2"


def test_an_output_that_was_not_left_is_said_before_any_other_stage_runs(bench):
    bench.stages["right"] = stage_table("{sft.model}", data__train={"type": "jsonl", "path": "{sft.pairs}"})
    for ran in (["sft-1"], []):
        with pytest.raises(
            ConfigError, match=r"stages\.right: data\.train\.path = '\{sft\.pairs\}': stage sft left no pai"
        ):
            bench.run()
        assert bench.jobs.ran == ran
    bench.stages["right"] = stage_table("{sft.model}", data__train={"type": "jsonl", "path": "{sft.job}/x.jsonl"})
    with pytest.raises(ConfigError, match=r"stage sft left no .*sft-1/x\.jsonl"):
        bench.run()


def test_data_that_a_stage_left_reaches_the_next_by_its_content(bench):
    bench.jobs = FakeJobs(leaves={"preferences.jsonl": "{}"})
    bench.stages["right"] = stage_table("{sft.model}", data__train={"type": "jsonl", "path": "{sft.pairs}"})
    made = bench.run()
    pairs = bench.home / "sft-1" / "preferences.jsonl"
    assert json.loads((bench.home / "right-1" / "job.json").read_text())["data"]["train"]["path"] == str(pairs)
    assert made["right"].ingredients.inputs["data.train.path"] == content.content_digest(pairs)
    pairs.write_text("other")
    assert bench.plan()["sft"] == ("run", (f"its pairs was changed: {pairs}",))


def test_a_pipeline_has_one_runner_at_a_time(bench):
    bench.run()
    claim = Claim.take(bench.home)
    with pytest.raises(ConfigError, match=f"is being run by process {os.getpid()} on .*: wait for it"):
        bench.run()
    bench.run(take_over=True)
    claim.release()


def test_a_state_that_cannot_be_read_stops_the_pipeline_and_is_not_begun_anew(bench):
    bench.run()
    (bench.home / FILE_NAME).write_text('{"pipeline": 1')
    with pytest.raises(StorageError, match=r"pipeline\.json cannot be read: .*Restore it from a copy, or move it away"):
        bench.run()
