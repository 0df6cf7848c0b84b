"""The checks of a job that look at two sections at once; each returns a problem in one sentence, or None.

A sentence names both settings with their values and the change that helps. Of all that are wrong, all are told.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from rlhf_cluster.algorithms import type_name
from rlhf_cluster.errors import did_you_mean

if TYPE_CHECKING:
    from rlhf_cluster.config.job import JobConfig


def _ranks_need_ddp(job: JobConfig) -> str | None:
    if job.learner.num_ranks > 1 and job.learner.backend == "plain":
        return (
            f'learner.num_ranks = {job.learner.num_ranks} with learner.backend = "plain": '
            'set learner.backend = "ddp" or learner.num_ranks = 1'
        )
    return None


def _ranks_need_processes(job: JobConfig) -> str | None:
    if job.learner.num_ranks > 1 and job.runtime == "local":
        return (
            f'learner.num_ranks = {job.learner.num_ranks} with runtime = "local", which has one process: '
            'set runtime = "ray" or learner.num_ranks = 1'
        )
    return None


def _vllm_workers_need_processes(job: JobConfig) -> str | None:
    rollout, bounds = job.rollout, job.autoscale
    if job.has_one_rollout_worker and rollout.num_workers + rollout.spares > 1:
        return (
            f"rollout.num_workers = {rollout.num_workers} and rollout.spares = {rollout.spares} of vLLM with runtime = "
            '"local", where vLLM can be opened once: set runtime = "ray", or rollout.num_workers = 1 without spares'
        )
    if job.has_one_rollout_worker and bounds and bounds.max_workers > 1:
        return (
            f'autoscale.max_workers = {bounds.max_workers} of vLLM with runtime = "local", where vLLM can be opened '
            'once: set runtime = "ray", or leave [autoscale] out'
        )
    return None


def _transport_suits_runtime(job: JobConfig) -> str | None:
    wrong = {"local": "object_store", "ray": "memory"}[job.runtime]
    if job.weights.transport == wrong:
        return (
            f'weights.transport = "{wrong}" does not exist with runtime = "{job.runtime}": '
            'set weights.transport = "auto"'
        )
    return None


def _algorithm_has_its_reward(job: JobConfig) -> str | None:
    if "reward" in job.algorithm.needs and not job.rewards and job.learn_from == "rollouts":
        name = type_name(job.algorithm)
        return f"algorithm.type = {name!r} needs a reward and rewards is empty: add a [[rewards]] table"
    return None


def _group_is_large_enough(job: JobConfig) -> str | None:
    least = job.algorithm.min_completions
    if job.train.completions_per_prompt < least and job.learn_from == "rollouts":
        return (
            f"train.completions_per_prompt = {job.train.completions_per_prompt} with algorithm.type = "
            f"{type_name(job.algorithm)!r}, which compares completions of one prompt: set it to {least} or more"
        )
    return None


def _engine_serves_what_travels(job: JobConfig) -> str | None:
    dtype = getattr(job.rollout.engine, "dtype", "auto")
    if dtype not in ("auto", job.serving_dtype):
        return (
            f"rollout.engine.dtype = {dtype!r} but weights travel as {job.serving_dtype}: leave the engine's dtype "
            f"out, or set weights.dtype = {dtype!r}"
        )
    return None


def _autoscale_has_room(job: JobConfig) -> str | None:
    bounds = job.autoscale
    if bounds and bounds.min_workers > bounds.max_workers:
        return (
            f"autoscale.min_workers = {bounds.min_workers} is above autoscale.max_workers = {bounds.max_workers}: "
            "raise max_workers or lower min_workers"
        )
    if bounds and not bounds.min_workers <= job.rollout.num_workers <= bounds.max_workers:
        return (
            f"rollout.num_workers = {job.rollout.num_workers} is outside of autoscale.min_workers = "
            f"{bounds.min_workers} and max_workers = {bounds.max_workers}: start between them"
        )
    return None


def _there_is_something_to_do(job: JobConfig) -> str | None:
    tasks = job.preferences or job.constitution
    if not job.trains and not tasks:
        return (
            "train.num_steps = 0 and nothing to generate: add a [train] table with num_steps, or [preferences] or "
            "[constitution]"
        )
    if job.trains and "algorithm" not in job.model_fields_set:
        return f'algorithm: missing, and train.num_steps = {job.train.num_steps}: add a table such as {{type = "grpo"}}'
    if tasks and job.learn_from == "data":
        return (
            f"algorithm.type = {type_name(job.algorithm)!r} learns from data.train, whose prompts [preferences] and "
            "[constitution] would answer: let a job of its own do that, with this job's checkpoint as its model"
        )
    return None


def _rule_has_its_rewards(job: JobConfig) -> str | None:
    if job.preferences and job.preferences.labels == "rule" and not job.rewards:
        return (
            'preferences.labels = "rule" and rewards is empty: add a [[rewards]] table, or let a judge or people label '
            '(labels = "judge" or "none")'
        )
    return None


def _algorithm_learns_from_that(job: JobConfig) -> str | None:
    possible = job.algorithm.learns_from
    if job.learn_from not in possible:
        return (
            f"train.learn_from = {job.learn_from!r} with algorithm.type = {type_name(job.algorithm)!r}, which learns "
            f"from {' or '.join(possible)}: leave learn_from out, or choose another algorithm"
        )
    return None


def _data_has_no_age(job: JobConfig) -> str | None:
    if job.learn_from == "data" and job.train.max_staleness > 0:
        return (
            f"train.max_staleness = {job.train.max_staleness} in a job that learns from data, which no policy sampled: "
            "leave it out"
        )
    return None


def _judge_is_one(job: JobConfig) -> str | None:
    judge = job.guards.judge
    if judge is None:
        return None
    weights = {reward.label: reward.weight for reward in job.rewards}
    if judge not in weights:
        known = ", ".join(map(repr, weights)) or "none"
        return f"guards.judge = {judge!r} is no reward of the job, whose rewards are {known}: name one with weight = 0"
    if weights[judge]:
        return (
            f"guards.judge = {judge!r} has weight = {weights[judge]:g}, so it is trained on and cannot judge: set its "
            "weight to 0, or name another reward"
        )
    if job.data.eval is None or not job.has_reward_servers:
        return (
            f"guards.judge = {judge!r} judges the policy's answers to held-out prompts, and there are none: add a "
            "[data.eval] table of prompts, or leave the judge out"
        )
    return None


def _kl_is_of_what_is_sampled(job: JobConfig) -> str | None:
    if job.evaluation.reference and job.evaluation.temperature != job.temperature:
        return (
            f"evaluation.reference = true with evaluation.temperature = {job.evaluation.temperature:g}, while the "
            f"reference divides logits by {job.temperature:g}: the KL would be of two different things; set "
            f"evaluation.temperature = {job.temperature:g}"
        )
    return None


def _completions_can_pass(job: JobConfig) -> str | None:
    evaluation, names = job.evaluation, ("reward", *(reward.label for reward in job.rewards))
    if evaluation.pass_at_k and evaluation.pass_reward not in names:
        return (
            f"evaluation.pass_reward = {evaluation.pass_reward!r} is no reward of this job"
            f"{did_you_mean(evaluation.pass_reward, names)}; there are {', '.join(names)}"
        )
    if (most := max(evaluation.pass_at_k, default=0)) > evaluation.completions_per_prompt:
        return (
            f"evaluation.pass_at_k holds {most} and evaluation.completions_per_prompt is "
            f"{evaluation.completions_per_prompt}: draw at least as many completions"
        )
    return None


def _four_bits_need_a_gpu(job: JobConfig) -> str | None:
    lora = job.learner.lora
    if lora and lora.quantise == "nf4" and not job.learner.gpus:
        return (
            'learner.lora.quantise = "nf4" with learner.gpus = 0, and 4-bit matrices are multiplied on a GPU: set '
            'learner.gpus = 1, or quantise = "none"'
        )
    return None


CHECKS: tuple[Callable[[JobConfig], str | None], ...] = (
    _judge_is_one,
    _there_is_something_to_do,
    _rule_has_its_rewards,
    _algorithm_learns_from_that,
    _data_has_no_age,
    _autoscale_has_room,
    _four_bits_need_a_gpu,
    _ranks_need_ddp,
    _ranks_need_processes,
    _vllm_workers_need_processes,
    _transport_suits_runtime,
    _algorithm_has_its_reward,
    _group_is_large_enough,
    _engine_serves_what_travels,
    _kl_is_of_what_is_sampled,
    _completions_can_pass,
)
