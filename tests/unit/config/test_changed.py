"""What differs from the defaults, by dotted key."""

from __future__ import annotations

import json

import pytest

from rlhf_cluster.config import load_job
from rlhf_cluster.config.changed import changed
from rlhf_cluster.config.load import check, recipe_names


def config_of(*overrides, job="word-world"):
    return json.loads(load_job(job, overrides).model_dump_json())


def test_only_what_was_said_and_is_not_usual_counts():
    before = changed(config_of())
    after = changed(config_of("rollout.num_workers=3", "rollout.num_workers=3", "train.max_staleness=0"))
    assert {key: value for key, value in after.items() if before.get(key) != value} == {"rollout.num_workers": 3}


def test_a_table_of_another_type_is_told_by_its_type_and_its_own_defaults():
    found = changed(config_of("rollout.engine.type=scripted", "rollout.engine.token_s=0.5"))
    assert {key: value for key, value in found.items() if key.startswith("rollout.engine")} == {
        "rollout.engine.type": "scripted",
        "rollout.engine.token_s": 0.5,
    }


def test_lists_are_told_by_index():
    found = changed(config_of("rewards.0.weight=0.5"))
    assert {key: value for key, value in found.items() if key.startswith("rewards")} == {
        "rewards.0.type": "function",
        "rewards.0.function": "word_world",
        "rewards.0.weight": 0.5,
    }


@pytest.mark.parametrize("recipe", recipe_names())
def test_what_has_changed_makes_the_same_job_again(recipe):
    job = load_job(recipe)
    tree: dict = {}
    for key, value in changed(json.loads(job.model_dump_json())).items():
        *parents, last = key.split(".")
        node = tree
        for part in parents:
            node = node.setdefault(part, {})
        node[last] = value
    tree["rewards"] = list(tree["rewards"].values())
    assert check(tree, source="") == job


def test_keys_of_another_version_and_algorithms_of_ones_own_are_changes():
    config = config_of() | {"from_the_future": {"a": 1}, "algorithm": {"type": "my.algorithms:Mine", "strength": 2}}
    found = changed(config)
    assert found["from_the_future"] == {"a": 1}
    assert found["algorithm"] == {"type": "my.algorithms:Mine", "strength": 2}
