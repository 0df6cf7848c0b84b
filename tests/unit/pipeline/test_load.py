"""A pipeline's file is checked whole before anything runs: stages, what differs in them, seeds, overrides."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rlhf_cluster.config.load import load_job
from rlhf_cluster.errors import ConfigError
from rlhf_cluster.pipeline.load import Pipeline, load_pipelines
from rlhf_cluster.testing.pipelines import stage_table, write_pipeline


@pytest.fixture
def load(tmp_path: Path):
    def call(stages: dict[str, Any], *overrides: str, **settings: Any) -> tuple[Pipeline, ...]:
        return load_pipelines(write_pipeline(tmp_path / "tiny.yaml", stages, **settings), overrides)

    return call


def job_of(pipelines: tuple[Pipeline, ...], stage: str = "sft") -> dict[str, Any]:
    return next(dict(each.job) for each in pipelines[0].stages if each.name == stage)


def test_a_stage_is_a_recipe_with_what_differs_and_the_pipelines_seed(load, tmp_path):
    job = job_of(load({"sft": {"job": "word-world", "with": {"train.num_steps": 7}}}, seed=3))
    expected = load_job("word-world", ["train.num_steps=7", "seed=3", "name=sft", f"output_dir={tmp_path}/runs/tiny"])
    assert job == expected.model_dump(mode="json")


def test_a_stage_is_a_job_file_beside_the_pipelines_or_the_job_itself(load, tmp_path):
    (tmp_path / "mine.yaml").write_text(load_job("word-world", ["train.num_steps=9"]).model_dump_json())
    tree = load_job("word-world", ["train.num_steps=8"]).model_dump(mode="json")
    pipelines = load({"sft": {"job": "mine.yaml"}, "more": {"job": tree, "with": {"model": "{sft.model}"}}})
    assert job_of(pipelines)["train"]["num_steps"] == 9
    assert job_of(pipelines, "more")["train"]["num_steps"] == 8
    assert job_of(pipelines, "more")["model"] == "{sft.model}"


def test_tables_are_merged_and_one_with_a_type_replaces_what_was_there(load):
    differs = {
        "train": {"num_steps": 5},
        "rollout": {"engine": {"type": "scripted"}},
        "rewards": {"0": {"weight": 0.5}},
        "learner.optimizer": {"lr": 0.1},
    }
    job = job_of(load({"sft": {"job": "word-world", "with": differs}}))
    assert job["train"] == load_job("word-world", ["train.num_steps=5"]).model_dump(mode="json")["train"]
    assert job["rollout"]["engine"]["type"] == "scripted"
    assert (job["rewards"][0]["function"], job["rewards"][0]["weight"]) == ("word_world", 0.5)
    assert (job["learner"]["optimizer"]["lr"], job["learner"]["precision"]) == (0.1, "fp32")


def test_a_stage_may_have_a_seed_of_its_own(load):
    assert job_of(load({"sft": {"job": "word-world", "with": {"seed": 9}}}, seed=3))["seed"] == 9


def test_each_seed_is_a_pipeline_in_a_directory_of_its_own(load):
    pipelines = load({"sft": stage_table("word-world")}, seeds=[1, 2])
    assert [(each.seed, each.directory.name) for each in pipelines] == [(1, "tiny-seed-1"), (2, "tiny-seed-2")]
    assert [each.stages[0].job["seed"] for each in pipelines] == [1, 2]


def test_overrides_reach_the_pipeline_and_by_a_stages_name_its_job(load):
    overrides = (
        "seeds=[4]",
        "sft.train.num_steps=11",
        "stages.sft.with.train.prompts_per_step=3",
        "sft.rewards.0.weight=2",
    )
    job = job_of(load({"sft": stage_table("word-world")}, *overrides))
    assert (job["seed"], job["train"]["num_steps"], job["train"]["prompts_per_step"]) == (4, 11, 3)
    assert job["rewards"][0]["weight"] == 2


@pytest.mark.parametrize(
    ("stages", "settings", "says"),
    [
        ({}, {}, "stages = {}"),
        ({"sft": {"with": {}}}, {}, "stages.sft.job: missing"),
        ({"sft": {"job": "word-world", "wiht": {}}}, {}, "stages.sft.wiht: unknown key (did you mean 'with'?)"),
        ({"sft": {"job": "word-wurld"}}, {}, "stages.sft.job: word-wurld: no such job file, and no recipe"),
        ({"sft": {"job": "word-world", "with": {"train.steps": 1}}}, {}, "train.steps: unknown key"),
        ({"sft": {"job": "word-world", "with": {"rewards.3.weight": 1}}}, {}, "'3' is no index of a list of 1"),
        ({"sft": {"job": "word-world"}}, {"stage": 1}, "stage: unknown key (did you mean 'stages'?)"),
        ({"sft": {"job": "word-world"}}, {"seeds": [1, 1]}, "seeds = [1, 1] holds one twice"),
        ({"seed": {"job": "word-world"}}, {}, "stages.seed: a stage cannot be called like a key of the pipeline"),
        ({"a-b": {"job": "word-world"}}, {}, "a-b"),
        ({"sft": stage_table("{sfd.model}")}, {}, "there is no stage 'sfd'"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_its_place(load, stages, settings, says):
    with pytest.raises(ConfigError) as raised:
        load(stages, **settings)
    assert says in str(raised.value)


def test_what_is_wrong_only_with_paths_in_place_is_said_before_anything_runs(load):
    rewards = [{"type": "model", "path": "{a.model}"}, {"type": "model", "path": "{b.model}"}]
    stages = {
        "a": stage_table("word-world"),
        "b": stage_table("word-world"),
        "c": stage_table("{a.model}", rewards=rewards),
    }
    with pytest.raises(ConfigError, match=r"stages\.c:\n.*2 rewards are called 'step-000001'"):
        load(stages)
