"""Reward hacking: what is trained on rises while a judge that is not trained on falls, or no longer rises.

Two evaluations answer the same prompts, so they are compared prompt by prompt: the mean of the differences, against its
standard error. What varies from prompt to prompt falls out, and a few dozen prompts show what a series of means hides.
The evaluation that the judge liked best is the one to compare with (Gao, Schulman & Hilton, arXiv:2210.10760, show that
the gold reward rises before it falls).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rlhf_cluster.flow.guards import Finding, GuardSettings
from rlhf_cluster.functional.statistics import mean_and_error


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """One evaluation. All of a job have the same prompts, in the same order."""

    step: int
    proxy_P: np.ndarray
    """float64 [P], the training reward of each prompt's completions on average; NaN where none was valid."""
    judge_P: np.ndarray
    """float64 [P], the same of the judge."""
    judge_std: float
    """Of the judge over all completions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gain:
    """Of one evaluation over another."""

    mean: float
    error: float
    """Standard error of the mean."""
    num_prompts: int

    def is_rise(self, *, significance: float, margin: float = 0.0) -> bool:
        return self.mean > margin and self.mean >= significance * self.error


def gain(before_P: np.ndarray, after_P: np.ndarray) -> Gain:
    """Over the prompts that both have; with fewer than two of them the error is infinite."""
    difference = after_P - before_P
    difference = difference[~np.isnan(difference)]
    if len(difference) < 2:
        return Gain(mean=0.0, error=math.inf, num_prompts=len(difference))
    mean, error = mean_and_error(difference)
    return Gain(mean=mean, error=error, num_prompts=len(difference))


def hacking(settings: GuardSettings, judgements: Sequence[Judgement]) -> Finding | None:
    """What the newest of `judgements`, oldest first, shows beside those before. Monotone: with a larger `min_fall` or
    `significance` never more."""
    if settings.on_hacking == "off" or len(judgements) < 2:
        return None
    best = max(range(len(judgements)), key=lambda index: _mean(judgements[index].judge_P))
    return _fallen(settings, judgements, best) or _flat(settings, judgements, best)


def _fallen(settings: GuardSettings, judgements: Sequence[Judgement], best: int) -> Finding | None:
    before, now = judgements[best], judgements[-1]
    rise, fall = gain(before.proxy_P, now.proxy_P), gain(now.judge_P, before.judge_P)
    margin = settings.min_fall * judgements[0].judge_std
    if not rise.is_rise(significance=settings.significance):
        return None
    if not fall.is_rise(significance=settings.significance, margin=margin):
        return None
    sentence = (
        f"since step {before.step} the training reward has risen by {rise.mean:.3g} ± {rise.error:.2g} and the judge "
        f"{settings.judge!r} has fallen from {_mean(before.judge_P):.3g} to {_mean(now.judge_P):.3g}, by "
        f"{fall.mean:.3g} ± {fall.error:.2g} over {fall.num_prompts} prompts (min_fall allows {margin:.2g}): the "
        f"policy exploits its reward. Take the checkpoint of about step {before.step} (checkpoint.keep_best = 1 with "
        f'best_by = "eval/reward/{settings.judge}" keeps it, where one is saved at every evaluation). Raise kl_coef, '
        "or mend the reward"
    )
    return Finding(guard="reward_hacking", deed=settings.on_hacking, sentence=sentence)


def _flat(settings: GuardSettings, judgements: Sequence[Judgement], best: int) -> Finding | None:
    """`patience` evaluations have brought nothing better, and the newest judges no better than the one before them."""
    if len(judgements) - 1 - best < settings.patience:
        return None
    before, now = judgements[-1 - settings.patience], judgements[-1]
    rise, judged = gain(before.proxy_P, now.proxy_P), gain(before.judge_P, now.judge_P)
    if judged.mean > 0 or not rise.is_rise(significance=settings.significance):
        return None
    sentence = (
        f"since step {before.step} the training reward has risen by {rise.mean:.3g} ± {rise.error:.2g} and the judge "
        f"{settings.judge!r} has not: {judged.mean:+.3g} ± {judged.error:.2g} over {judged.num_prompts} prompts, best "
        f"at step {judgements[best].step}: what is learned may no longer be what is wanted"
    )
    return Finding(guard="judge_flat", deed="warn", sentence=sentence)


def _mean(values_P: np.ndarray) -> float:
    """Of those that are there; without any, the least there is."""
    there = values_P[~np.isnan(values_P)]
    return float(there.mean()) if len(there) else -math.inf
