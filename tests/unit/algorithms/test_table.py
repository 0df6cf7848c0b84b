"""Naming an algorithm in a job: built-in names, import paths, and what a wrong one is told."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from rlhf_cluster.algorithms import ALGORITHMS, GRPO, Algorithm, AlgorithmSettings, resolve
from rlhf_cluster.errors import ConfigError
from rlhf_cluster.settings import Settings


class Outsider(Algorithm):
    """An algorithm of another package: it names no type of its own."""

    strength: float = 1.0


OUTSIDER = f"{__name__}:Outsider"


class Job(Settings):
    algorithm: AlgorithmSettings


def test_a_table_resolves_to_the_algorithm_it_names():
    assert resolve({"type": "grpo", "clip_high": 0.28}) == GRPO(clip_high=0.28)


def test_an_algorithm_resolves_to_itself():
    algorithm = GRPO()
    assert resolve(algorithm) is algorithm


def test_an_import_path_resolves_without_an_entry_in_the_table():
    assert resolve({"type": OUTSIDER, "strength": 2.0}) == Outsider(strength=2.0)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"type": "grpoo"}, "did you mean 'grpo'"),
        ({"type": "zzz"}, "choose grpo, .*sft.*, or an import path"),
        ({}, "no type: choose grpo"),
        ({"type": 3}, "3 is unknown"),
        ("grpo", 'type = "grpo"'),
        ({"type": "no_such_module_here:Thing"}, "cannot import no_such_module_here.*PYTHONPATH.*--code"),
        ({"type": "collections:Countre"}, "did you mean 'Counter'"),
        ({"type": ":Thing"}, "no import path"),
        ({"type": "collections:OrderedDict"}, "no subclass"),
    ],
)
def test_a_wrong_type_is_answered_with_what_would_be_right(value, words):
    with pytest.raises(ConfigError, match=words):
        resolve(value)


def test_wrong_hyper_parameters_are_located_inside_the_job():
    with pytest.raises(ValidationError) as caught:
        Job.model_validate({"algorithm": {"type": "grpo", "clip_hihg": 0.3}})
    assert caught.value.errors()[0]["loc"] == ("algorithm", "clip_hihg")


@pytest.mark.parametrize("algorithm", [*(kind() for kind in ALGORITHMS.values()), Outsider(strength=2.0)])
def test_a_job_dumps_to_a_table_that_gives_an_equal_algorithm(algorithm):
    job = Job(algorithm=algorithm)
    assert Job.model_validate(job.model_dump()) == job
    assert Job.model_validate_json(job.model_dump_json()) == job


def test_the_schema_of_a_job_describes_every_built_in_algorithm():
    choices = Job.model_json_schema()["properties"]["algorithm"]["anyOf"]
    types = [choice["properties"]["type"].get("const") for choice in choices]
    assert types == [*ALGORITHMS, None]


@pytest.mark.parametrize("name", ALGORITHMS)
def test_the_name_in_the_table_is_the_type_of_the_class(name):
    assert ALGORITHMS[name]().type == name
