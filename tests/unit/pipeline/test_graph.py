"""References name outputs of other stages; the order follows, and what cannot be ordered is said."""

from __future__ import annotations

from typing import Any

import pytest

from rlhf_cluster.errors import ConfigError
from rlhf_cluster.pipeline.graph import Stage, leaves, ordered


def stage(name: str, **job: Any) -> Stage:
    return Stage(name=name, job=job)


def refusal(*stages: Stage) -> str:
    with pytest.raises(ConfigError) as raised:
        ordered(stages)
    return str(raised.value)


def test_a_stage_follows_those_it_needs_and_others_keep_their_place():
    stages = [
        stage("ppo", model="{sft.model}", rewards=[{"path": "{reward_model.model}"}]),
        stage("aside", model="base"),
        stage("reward_model", model="{sft.model}", data={"train": {"path": "{pairs.pairs}"}}),
        stage("pairs", model="{sft.model}"),
        stage("sft", model="base"),
    ]
    assert [each.name for each in ordered(stages)] == ["aside", "sft", "pairs", "reward_model", "ppo"]


def test_a_circle_is_told_along_its_stages():
    said = refusal(
        stage("end", model="{one.model}"), stage("one", model="{two.model}"), stage("two", model="{one.job}")
    )
    assert said.startswith("stages need each other in a circle: one -> two -> one")


def test_a_stage_that_needs_itself_is_a_circle():
    assert "circle: one -> one" in refusal(stage("one", model="{one.model}"))


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("{sfd.model}", "there is no stage 'sfd' (did you mean 'sft'?)"),
        ("{other.model}", "there is no stage 'other'; stages are sft, ppo"),
        ("{sft.modle}", "a stage has no output 'modle' (did you mean 'model'?)"),
        ("{sft.x}", "a stage has no output 'x'; outputs are model, pairs, revisions, evaluation, job"),
    ],
)
def test_a_reference_to_nothing_names_the_setting_and_what_there_is(value, says):
    said = refusal(stage("sft", model="base"), stage("ppo", rewards=[{"path": value}]))
    assert said == f"stages.ppo: rewards.0.path = '{value}': {says}"


def test_only_a_whole_value_or_the_beginning_of_a_path_is_a_reference():
    job = {"a": "{sft.model}", "b": "{sft.job}/samples.jsonl", "c": "Is {sft.model} good?", "d": "{prompt}", "e": 1}
    assert [str(found) for found in stage("x", **job).references] == ["{sft.model}", "{sft.job}/samples.jsonl"]


def test_resolving_changes_references_and_nothing_else():
    job = {"model": "{sft.model}", "rewards": [{"path": "{rm.job}/x"}, {"weight": 0.5}], "observers": [], "data": {}}
    resolved = stage("x", **job).resolved(lambda reference: f"/{reference.stage}{reference.rest}")
    assert resolved == {**job, "model": "/sft", "rewards": [{"path": "/rm/x"}, {"weight": 0.5}]}
    assert stage("x", **job).resolved(str) == job


def test_leaves_are_every_value_by_its_dotted_key():
    assert dict(leaves({"a": {"b": [1, {"c": None}]}, "d": []})) == {"a.b.0": 1, "a.b.1.c": None, "d": []}
