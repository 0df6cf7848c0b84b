"""What the answers of an evaluation come to: every figure with its confidence interval over prompts.

Pure: from answers and how they are counted to intervals by name, so a report can count them once more.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from rlhf_cluster.config.sections import EvaluationSettings
from rlhf_cluster.driver.answers import TOTAL, Answer, reward_names
from rlhf_cluster.functional.clusters import clustered_mean, clustered_quantile, clustered_rate, clustered_ratio
from rlhf_cluster.functional.statistics import Interval, distinct_n, pass_at_k, repetition_n

PERCENTILES = (10, 50, 90)
REPEATED_N, DISTINCT_N = 4, 2


def answer_figures(answers: Sequence[Answer], settings: EvaluationSettings, *, seed: int) -> dict[str, Interval]:
    """By name: `reward`, `reward/<name>`, `pass@<k>`, `kl`, `kl_per_token`, `entropy_per_token`, `length`,
    `length_p<percentile>`, `truncated_rate`, `repetition_4`, `distinct_2`. What cannot be told is left out."""
    if not answers:
        return {}
    figures = _rewards(answers, seed=seed)
    for k in settings.pass_at_k:
        if found := passed(answers, settings, k=k):
            figures[f"pass@{k}"] = clustered_rate(found, seed=seed)
    figures |= _log_probabilities(answers, is_greedy=settings.temperature == 0, seed=seed)
    return figures | _lengths(answers, seed=seed) | _repetition(answers, seed=seed)


def passed(answers: Sequence[Answer], settings: EvaluationSettings, *, k: int) -> list[float]:
    """pass@k of each prompt with k valid completions or more: an invalid one has neither passed nor failed."""
    verdicts: dict[str, list[bool]] = {}
    for answer in answers:
        if not math.isnan(reward := answer.reward(settings.pass_reward)):
            verdicts.setdefault(answer.prompt, []).append(reward >= settings.pass_threshold)
    enough = [found for found in verdicts.values() if len(found) >= k]
    if not enough:
        return []
    return pass_at_k([len(found) for found in enough], [sum(found) for found in enough], k=k).tolist()


def _rewards(answers: Sequence[Answer], *, seed: int) -> dict[str, Interval]:
    figures = {}
    for name in reward_names(answers):
        valid = [answer for answer in answers if not math.isnan(answer.reward(name))]
        if valid:
            label = TOTAL if name == TOTAL else f"{TOTAL}/{name}"
            figures[label] = clustered_mean([answer.reward(name) for answer in valid], _prompts(valid), seed=seed)
    return figures


def _log_probabilities(answers: Sequence[Answer], *, is_greedy: bool, seed: int) -> dict[str, Interval]:
    """Estimates from the sampled tokens, k1 of Schulman's (2020) names: unbiased, and of one answer also negative.
    A greedy answer is no sample, and estimates neither."""
    if is_greedy:
        return {}
    prompts, lengths = _prompts(answers), [answer.length for answer in answers]
    figures = {}
    if all(answer.reference_logprob is not None for answer in answers):
        kl = [answer.logprob - (answer.reference_logprob or 0.0) for answer in answers]
        figures["kl"] = clustered_mean(kl, prompts, seed=seed)
        figures["kl_per_token"] = clustered_ratio(kl, lengths, prompts, seed=seed)
    surprise = [-answer.logprob for answer in answers]
    return figures | {"entropy_per_token": clustered_ratio(surprise, lengths, prompts, seed=seed)}


def _lengths(answers: Sequence[Answer], *, seed: int) -> dict[str, Interval]:
    prompts, lengths = _prompts(answers), [answer.length for answer in answers]
    truncated = [float(answer.finish_reason == "length") for answer in answers]
    return {
        "length": clustered_mean(lengths, prompts, seed=seed),
        **{
            f"length_p{percent}": clustered_quantile(lengths, prompts, quantile=percent / 100, seed=seed)
            for percent in PERCENTILES
        },
        "truncated_rate": _mean_rate(truncated, prompts, seed=seed),
    }


def _repetition(answers: Sequence[Answer], *, seed: int) -> dict[str, Interval]:
    """Repetition within an answer, and how different the answers to one prompt are among themselves."""
    repeated = [repetition_n(answer.token_ids, n=REPEATED_N) for answer in answers]
    by_prompt: dict[str, list[tuple[int, ...]]] = {}
    for answer in answers:
        by_prompt.setdefault(answer.prompt, []).append(answer.token_ids)
    distinct = np.array([distinct_n(sequences, n=DISTINCT_N) for sequences in by_prompt.values()])
    distinct = distinct[~np.isnan(distinct)]
    figures = {f"repetition_{REPEATED_N}": clustered_mean(repeated, _prompts(answers), seed=seed)}
    if len(distinct):
        figures[f"distinct_{DISTINCT_N}"] = clustered_mean(distinct, range(len(distinct)), seed=seed)
    return figures


def _mean_rate(values: Sequence[float], prompts: Sequence[str], *, seed: int) -> Interval:
    """Of completions that differ in number from prompt to prompt; of none and of all Wilson's interval over prompts."""
    if len(set(values)) == 1:
        return clustered_rate([values[0]] * len(set(prompts)), seed=seed)
    return clustered_mean(values, prompts, seed=seed)


def _prompts(answers: Sequence[Answer]) -> list[str]:
    return [answer.prompt for answer in answers]
