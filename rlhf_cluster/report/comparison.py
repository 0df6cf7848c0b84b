"""Two models on the same prompts: how often one is better, by how much, and on which prompts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rlhf_cluster.driver.answers import Answer
from rlhf_cluster.errors import DataError
from rlhf_cluster.functional.clusters import clustered_rate, win_rates
from rlhf_cluster.functional.statistics import Interval, paired_difference
from rlhf_cluster.report.evaluations import Evaluation

NUM_EACH = 3
"""Prompts shown of each kind."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """One evaluation against the baseline, over the prompts that both have answered."""

    name: str
    num_prompts: int
    win_rate: Interval
    """Share of pairs of answers to one prompt of which ours is worth more, ties counted half; mean over prompts."""
    difference: Interval
    """Of the mean reward, paired by prompt."""
    judged: Interval | None = None
    """Win rate by the judge; None where there is none."""
    num_unjudged: int = 0
    """Pairs on which the judge has failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """A prompt with what each model has answered."""

    why: str
    prompt: str
    answers: tuple[Answer | None, ...]
    """The first of each evaluation, whatever it is worth; None of one that has not answered this prompt."""
    means: tuple[float, ...]
    """The reward of all its answers to the prompt; NaN where there is none."""


def compare(ours: Evaluation, theirs: Evaluation, *, by: str, seed: int) -> Compared:
    """Raises `DataError` where the two have no prompt in common."""
    rates = win_rates(
        [answer.reward(by) for answer in ours.answers],
        [answer.prompt for answer in ours.answers],
        [answer.reward(by) for answer in theirs.answers],
        [answer.prompt for answer in theirs.answers],
    )
    if not rates:
        raise DataError(
            f"{ours.name} and {theirs.name} have no prompt in common that both have a reward {by!r} for: evaluate both "
            "with the same data.eval and data.template"
        )
    means = [_means(each, by) for each in (ours, theirs)]
    return Compared(
        name=ours.name,
        num_prompts=len(rates),
        win_rate=clustered_rate(list(rates.values()), seed=seed),
        difference=paired_difference(*([each[prompt] for prompt in rates] for each in means), seed=seed),
    )


def choose(evaluations: Sequence[Evaluation], *, baseline: Evaluation, by: str) -> list[Shown]:
    """Some prompts that nobody has chosen, then those where the last model is best and worst, and, where there is a
    baseline beside it, where it has gained and lost most. No prompt twice."""
    last = next((each for each in reversed(evaluations) if each is not baseline), baseline)
    by_prompt = [each.by_prompt() for each in evaluations]
    means, before = _means(last, by), _means(baseline, by)
    shared = [prompt for prompt in means if last is not baseline and prompt in before]
    gains = sorted(shared, key=lambda prompt: before[prompt] - means[prompt])
    ranked = sorted(means, key=lambda prompt: -means[prompt])
    wanted = [
        ("first of the data, chosen by nobody", list(last.by_prompt())),
        (f"largest gain of {last.name} over {baseline.name}", gains),
        (f"largest loss of {last.name} against {baseline.name}", gains[::-1]),
        (f"best of {last.name}", ranked),
        (f"worst of {last.name}", ranked[::-1]),
    ]
    shown: dict[str, Shown] = {}
    for why, prompts in wanted:
        for prompt in [each for each in prompts if each not in shown][:NUM_EACH]:
            shown[prompt] = Shown(
                why=why,
                prompt=prompt,
                answers=tuple((each.get(prompt) or [None])[0] for each in by_prompt),
                means=tuple(_mean(each.get(prompt, []), by) for each in by_prompt),
            )
    return list(shown.values())


def _means(evaluation: Evaluation, by: str) -> dict[str, float]:
    """By prompt, of those that have a valid answer."""
    found = {prompt: _mean(answers, by) for prompt, answers in evaluation.by_prompt().items()}
    return {prompt: mean for prompt, mean in found.items() if not math.isnan(mean)}


def _mean(answers: Sequence[Answer], by: str) -> float:
    valid = [reward for answer in answers if not math.isnan(reward := answer.reward(by))]
    return float(np.mean(valid)) if valid else math.nan
