"""The checked job: frozen, with derived values that nothing has to rewrite."""

from __future__ import annotations

import copy
import pickle

import pydantic
import pytest

from rlhf_cluster.config import JobConfig
from rlhf_cluster.testing import make_job


def test_a_job_is_frozen_all_the_way_down():
    job = make_job()
    for section, key in (
        (job, "seed"),
        (job.train, "num_steps"),
        (job.algorithm, "clip_high"),
        (job.rollout.engine, "type"),
    ):
        with pytest.raises(pydantic.ValidationError, match="frozen"):
            setattr(section, key, 1)


def test_a_job_survives_pickling_and_copying():
    job = make_job(["algorithm.kl_coef=0.1"])
    assert pickle.loads(pickle.dumps(job)) == job == copy.deepcopy(job)


@pytest.mark.parametrize(
    ("overrides", "dtype"),
    [
        (["learner.precision=bf16"], "bfloat16"),
        (["learner.precision=fp32"], "float32"),
        (["learner.precision=bf16", "weights.dtype=float32"], "float32"),
    ],
)
def test_weights_travel_in_the_learners_precision_unless_told_otherwise(overrides, dtype):
    assert make_job(overrides).serving_dtype == dtype


def test_the_probe_is_stricter_in_float32_and_can_be_set():
    assert make_job(["learner.precision=fp32"]).probe_tolerance < make_job(["learner.precision=bf16"]).probe_tolerance
    assert make_job(["weights.probe_tolerance=0.25"]).probe_tolerance == 0.25


@pytest.mark.parametrize(
    ("overrides", "transport"),
    [
        (["runtime=local"], "memory"),
        (["runtime=ray"], "object_store"),
        (["runtime=ray", "weights.transport=filesystem"], "filesystem"),
    ],
)
def test_the_transport_suits_the_runtime(overrides, transport):
    assert make_job(overrides).transport == transport


def test_an_algorithm_without_rewards_needs_none():
    assert make_job(["rewards=[]", "algorithm.type=sft"]).rewards == ()


def test_a_job_that_only_generates_says_nothing_of_training():
    tree = make_job(["preferences.labels=none", "rewards=[]", "train.num_steps=0"]).model_dump(mode="json", exclude={"train", "algorithm"})
    job = JobConfig.model_validate(tree)
    assert not job.trains
    assert (job.generates, job.needs_reference, job.has_reward_servers) == (True, False, False)
    assert not {"train", "algorithm"} & set(JobConfig.model_json_schema()["required"])
    with pytest.raises(pydantic.ValidationError, match="train"):
        JobConfig.model_validate({**tree, "preferences": None})


def test_a_job_may_train_and_then_generate():
    job = make_job(["preferences.num_pairs=4"])
    assert job.trains
    assert job.generates
