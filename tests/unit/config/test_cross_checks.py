"""Settings that are each right and together wrong: the message names both and the change to make."""

from __future__ import annotations

import pytest

from rlhf_cluster.config.cross_checks import CHECKS
from rlhf_cluster.config.load import check
from rlhf_cluster.errors import ConfigError
from rlhf_cluster.testing import make_job

CASES = {
    "_judge_is_one": (
        ["guards.judge=fake"],
        ["guards.judge = 'fake' has weight = 1", "so it is trained on and cannot judge", "set its weight to 0"],
    ),
    "_autoscale_has_room": (
        ["autoscale.max_workers=2", "rollout.num_workers=3"],
        ["rollout.num_workers = 3", "autoscale.min_workers = 1", "max_workers = 2: start between them"],
    ),
    "_ranks_need_ddp": (
        ["runtime=ray", "learner.num_ranks=2"],
        ["learner.num_ranks = 2", 'learner.backend = "plain"', 'set learner.backend = "ddp"'],
    ),
    "_ranks_need_processes": (
        ["learner.num_ranks=2", "learner.backend=ddp"],
        ["learner.num_ranks = 2", 'runtime = "local"', 'set runtime = "ray"'],
    ),
    "_vllm_workers_need_processes": (
        ["rollout.num_workers=2", "rollout.engine.type=vllm"],
        ["rollout.num_workers = 2", 'runtime = "local"', "rollout.num_workers = 1"],
    ),
    "_transport_suits_runtime": (
        ["weights.transport=object_store"],
        ['weights.transport = "object_store"', 'runtime = "local"', 'set weights.transport = "auto"'],
    ),
    "_algorithm_has_its_reward": (
        ["rewards=[]"],
        ["algorithm.type = 'grpo'", "rewards is empty", "add a [[rewards]] table"],
    ),
    "_group_is_large_enough": (
        ["train.completions_per_prompt=1"],
        ["train.completions_per_prompt = 1", "algorithm.type = 'grpo'", "set it to 2 or more"],
    ),
    "_algorithm_learns_from_that": (
        ["train.learn_from=data"],
        ["train.learn_from = 'data'", "algorithm.type = 'grpo'", "learns from rollouts", "leave learn_from out"],
    ),
    "_data_has_no_age": (
        ["algorithm.type=sft", "train.max_staleness=1"],
        ["train.max_staleness = 1", "learns from data", "leave it out"],
    ),
    "_kl_is_of_what_is_sampled": (
        ["evaluation.reference=true", "evaluation.temperature=0.5"],
        ["evaluation.temperature = 0.5", "divides logits by 1", "set evaluation.temperature = 1"],
    ),
    "_completions_can_pass": (
        ["evaluation.pass_at_k=[1, 8]"],
        ["evaluation.pass_at_k holds 8", "evaluation.completions_per_prompt is 4", "draw at least as many"],
    ),
    "_there_is_something_to_do": (
        ["train.num_steps=0"],
        ["train.num_steps = 0", "nothing to generate", "[preferences]", "[constitution]"],
    ),
    "_rule_has_its_rewards": (
        ["train.num_steps=0", "preferences={}", "rewards=[]"],
        ['preferences.labels = "rule"', "rewards is empty", "add a [[rewards]] table"],
    ),
    "_four_bits_need_a_gpu": (
        ["learner.lora.quantise=nf4"],
        ['learner.lora.quantise = "nf4"', "learner.gpus = 0", 'quantise = "none"'],
    ),
    "_engine_serves_what_travels": (
        ["rollout.engine.type=vllm", "rollout.engine.dtype=float32", "learner.precision=bf16"],
        ["rollout.engine.dtype = 'float32'", "weights travel as bfloat16", "weights.dtype = 'float32'"],
    ),
}


def refusal(overrides: list[str]) -> str:
    with pytest.raises(ConfigError) as raised:
        make_job(overrides)
    return str(raised.value)


def test_every_check_has_a_case_here():
    assert set(CASES) == {check.__name__ for check in CHECKS}


@pytest.mark.parametrize("name", CASES)
def test_both_settings_and_the_change_are_named(name):
    overrides, parts = CASES[name]
    message = refusal(overrides)
    for part in parts:
        assert part in message


@pytest.mark.parametrize("name", CASES)
def test_the_change_that_is_offered_helps(name):
    others = 'rewards=[{function="word_world",name="fake",weight=0},{function="word_world",name="trained"}]'
    changes = {
        "_judge_is_one": [others, "data.eval.type=procedural", "data.eval.name=word_world"],
        "_autoscale_has_room": ["rollout.num_workers=2"],
        "_ranks_need_ddp": ["learner.backend=ddp"],
        "_ranks_need_processes": ["runtime=ray"],
        "_vllm_workers_need_processes": ["runtime=ray"],
        "_transport_suits_runtime": ["weights.transport=auto"],
        "_algorithm_has_its_reward": ['rewards=[{function="word_world"}]'],
        "_group_is_large_enough": ["train.completions_per_prompt=2"],
        "_algorithm_learns_from_that": ["algorithm.type=sft"],
        "_data_has_no_age": ["train.max_staleness=0"],
        "_there_is_something_to_do": ["preferences={}"],
        "_rule_has_its_rewards": ['rewards=[{function="word_world"}]'],
        "_engine_serves_what_travels": ["weights.dtype=float32"],
        "_four_bits_need_a_gpu": ["learner.gpus=1"],
        "_kl_is_of_what_is_sampled": ["evaluation.temperature=1"],
        "_completions_can_pass": ["evaluation.completions_per_prompt=8"],
    }
    make_job([*CASES[name][0], *changes[name]])


def test_a_job_that_learns_from_data_leaves_generating_to_one_of_its_own():
    message = refusal(["algorithm.type=sft", "preferences={}"])
    assert "algorithm.type = 'sft' learns from data.train" in message
    assert "let a job of its own do that" in message


def test_a_job_that_trains_says_how():
    tree = make_job().model_dump(mode="json", exclude={"algorithm"})
    with pytest.raises(ConfigError, match=r"algorithm: missing, and train.num_steps = 2: add a table"):
        check(tree, source="job.toml")


def test_problems_between_sections_are_told_together():
    message = refusal(["learner.num_ranks=2", "train.completions_per_prompt=1"])
    assert "learner.backend" in message
    assert "train.completions_per_prompt" in message


def test_two_rewards_of_one_name_are_told_apart_or_refused():
    message = refusal(['rewards=[{function="word_world"},{function="word_world"}]'])
    assert "2 rewards are called 'word_world'; give each its own `name`" in message


@pytest.mark.parametrize(
    ("overrides", "part"),
    [
        (["autoscale.min_workers=3", "autoscale.max_workers=2"], "raise max_workers or lower min_workers"),
        (
            ["evaluation.pass_at_k=[1]", "evaluation.pass_reward=fakes"],
            "no reward of this job (did you mean 'fake'?); there are reward, fake",
        ),
        (["autoscale.max_workers=2", "rollout.engine.type=vllm"], "leave [autoscale] out"),
    ],
)
def test_bounds_that_can_only_fail_are_refused_with_the_change_that_helps(overrides, part):
    assert part in refusal(overrides)
