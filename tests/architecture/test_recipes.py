"""Every recipe is short, says what it is, and runs: two steps on the scripted engine, with a tiny model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rlhf_cluster.cli.main import run
from rlhf_cluster.config.load import find, load_job, parse, recipe_names

MAX_LINES = 40
SMALL = (
    "model=word-world",
    "runtime=local",
    'rollout.engine={type="scripted", vocab_size=100}',
    "rollout.max_new_tokens=6",
    "train.num_steps=2",
    "train.prompts_per_step=2",
    "train.completions_per_prompt=2",
    "evaluation.num_prompts=2",
    "evaluation.completions_per_prompt=1",
)
"""The sizes of a recipe, cut down; what it trains on, how, and with which rewards stays."""

recipes = pytest.mark.parametrize("name", recipe_names())


@recipes
def test_a_recipe_is_a_job_that_says_what_it_is(name):
    job = load_job(name)
    assert job.name == name
    assert job.description


@recipes
def test_a_recipe_is_short(name):
    lines = find(name).read_text(encoding="utf-8").splitlines()
    assert len([line for line in lines if line and not line.startswith("#")]) <= MAX_LINES


@recipes
def test_a_recipe_runs(name, word_world_home: Path, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setenv("RLHF_CLUSTER_HOME", str(word_world_home))
    assert run(["run", name, *SMALL, *adapted(parse(find(name))), f"output_dir={tmp_path}", "-o", "json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["outcome"], summary["step"]) == ("succeeded", 2)


def adapted(tree: dict) -> list[str]:
    """Random words seldom differ in reward, and the tiny model has two layers."""
    overrides = ["algorithm.keep_zero_variance=true"] if tree["algorithm"]["type"] == "grpo" else []
    if "train_last_layers" in tree.get("learner", {}):
        overrides.append("learner.train_last_layers=1")
    return overrides
