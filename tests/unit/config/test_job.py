"""The checked job: frozen, with derived values that nothing has to rewrite."""

from __future__ import annotations

import copy
import pickle

import pydantic
import pytest

from rlhf_cluster.errors import ConfigError
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


def test_four_bits_need_a_gpu_of_the_learner():
    with pytest.raises(
        ConfigError, match=r'"nf4" with learner.gpus = 0, .* set learner.gpus = 1, or quantise = "none"'
    ):
        make_job(["learner.lora.quantise=nf4"])
    assert make_job(["learner.lora.quantise=nf4", "learner.gpus=1"]).learner.lora.quantise == "nf4"


def test_a_job_survives_pickling_and_copying():
    job = make_job(["algorithm.kl_coef=0.1"])
    assert pickle.loads(pickle.dumps(job)) == job == copy.deepcopy(job)


@pytest.mark.parametrize(
    ("overrides", "dtype"),
    [
        (["learner.precision=bf16"], "bfloat16"),
        (["learner.precision=fp32"], "float32"),
        (["learner.precision=auto", "learner.gpus=1"], "bfloat16"),
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
