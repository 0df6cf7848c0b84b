"""What can go wrong with learning while every step succeeds: the settings of the guards, and what they see in a step.

Consumes figures of a job, oldest first; produces findings, each with one sentence that holds the numbers. Nothing here
ends a job: `driver/guards.py` acts. What is seen in evaluations is in `flow/judge.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from pydantic import Field

from rlhf_cluster.settings import Settings

Deed = Literal["stop", "warn", "off"]

KL = "learner/kl"
LENGTH = "rollout/completion_length_mean"
REPETITION = "rollout/repetition"
ENTROPY = "learner/entropy"
TRUNCATED = "rollout/truncated_rate"
DRIFTING = (LENGTH, REPETITION, ENTROPY, TRUNCATED)
"""Figures whose last values are compared with the first ones of the job."""


class GuardSettings(Settings):
    """What is done about learning that goes wrong. `stop` ends the job after the step, with a checkpoint; `warn` says
    so once, until it is well again; `off` does not look."""

    on_hacking: Deed = "stop"
    """The training reward rises and the judge falls. A judge that stays flat is only warned about."""
    judge: str | None = None
    """Name of a reward with `weight = 0`, which judges every evaluation and is not trained on. None looks for no
    hacking."""
    min_fall: float = Field(0.2, ge=0)
    """The judge has to fall by more than so many of its standard deviations over completions."""
    significance: float = Field(3.0, gt=0)
    """And the fall, and the rise of the training reward, have to be at least so many standard errors."""
    patience: int = Field(5, ge=1)
    """Evaluations without a better judgement after which a judge counts as flat."""
    on_kl_runaway: Deed = "stop"
    """The policy is too far from the reference. Only where the algorithm reports `learner/kl`."""
    max_kl: float = Field(2.0, gt=0)
    """In nats a token; what a step may have on average."""
    kl_steps: int = Field(5, ge=1)
    """Steps in a row above `max_kl` that make a runaway."""
    on_drift: Deed = "warn"
    """Length, repetition, entropy or truncation are no longer what they were in the first steps."""
    drift_steps: int = Field(5, ge=1)
    """So many first steps are compared with so many last ones."""
    max_length_ratio: float = Field(3.0, gt=1)
    """Completions may become so many times longer, or shorter."""
    max_repetition: float = Field(0.5, gt=0, le=1)
    """Share of repeated 4-grams of tokens in a completion, on average; where it was less at first."""
    min_entropy_share: float = Field(0.1, ge=0, lt=1)
    """What has to be left of the entropy of the first steps."""
    max_truncated_rise: float = Field(0.5, gt=0, le=1)
    """The share of completions that are cut off may rise by so much."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    guard: str
    """`reward_hacking`, `judge_flat`, `kl_runaway`, `length`, `repetition`, `entropy` or `truncation`."""
    deed: Deed
    """What the settings want done: `stop` or `warn`."""
    sentence: str
    """What was seen, with numbers, and what to change."""


def kl_runaway(settings: GuardSettings, kl_by_step: Sequence[float]) -> Finding | None:
    """`kl_by_step` are means a token, of consecutive steps; those before the last `kl_steps` do not matter."""
    last = kl_by_step[-settings.kl_steps :]
    if settings.on_kl_runaway == "off" or len(last) < settings.kl_steps or not min(last) > settings.max_kl:
        return None
    sentence = (
        f"the KL to the reference was above max_kl = {settings.max_kl:g} nats/token in the last {len(last)} steps, "
        f"{last[-1]:.3g} in the last one: raise algorithm.kl_coef, or lower the learning rate"
    )
    return Finding(guard="kl_runaway", deed=settings.on_kl_runaway, sentence=sentence)


def drifts(
    settings: GuardSettings, *, first: Mapping[str, Sequence[float]], last: Mapping[str, Sequence[float]]
) -> list[Finding]:
    """`first` and `last` hold values of the figures `DRIFTING`, of `drift_steps` steps each or of fewer, which are too
    few to say anything. A figure that a job does not have is passed over."""
    if settings.on_drift == "off":
        return []
    full = [name for name in DRIFTING if len(first.get(name, ())) == len(last.get(name, ())) == settings.drift_steps]
    seen = ((name, SIGHTS[name](settings, fmean(first[name]), fmean(last[name]))) for name in full)
    when = f"over {settings.drift_steps} steps"
    return [
        Finding(guard=NAMES[name], deed=settings.on_drift, sentence=sentence.format(when=when))
        for name, sentence in seen
        if sentence
    ]


def _length(settings: GuardSettings, first: float, last: float) -> str | None:
    most = settings.max_length_ratio
    if first <= 0 or first / most <= last <= first * most:
        return None
    word = "longer" if last > first else "shorter"
    return (
        f"completions are {word} than at first: {last:.1f} tokens {{when}} against {first:.1f}, and max_length_ratio = "
        f"{most:g}: read some of them, the reward may pay for their length"
    )


def _repetition(settings: GuardSettings, first: float, last: float) -> str | None:
    if last <= settings.max_repetition or first > settings.max_repetition:
        return None
    return (
        f"{last:.0%} of the 4-grams in a completion were in it before, {{when}}, against {first:.0%} at first, and "
        f"max_repetition = {settings.max_repetition:g}: read some of them, the reward may pay for repetition"
    )


def _entropy(settings: GuardSettings, first: float, last: float) -> str | None:
    if first <= 0 or last >= settings.min_entropy_share * first:
        return None
    return (
        f"the entropy has fallen to {last:.3g} nats/token {{when}} from {first:.3g} at first, below "
        f"min_entropy_share = {settings.min_entropy_share:g} of it: the policy no longer explores. Lower the learning "
        "rate, or raise algorithm.kl_coef"
    )


def _truncation(settings: GuardSettings, first: float, last: float) -> str | None:
    if last - first <= settings.max_truncated_rise:
        return None
    return (
        f"{last:.0%} of the completions are cut off at max_new_tokens, {{when}}, against {first:.0%} at first, and "
        f"max_truncated_rise = {settings.max_truncated_rise:g}: the policy no longer finds an end"
    )


SIGHTS = {LENGTH: _length, REPETITION: _repetition, ENTROPY: _entropy, TRUNCATED: _truncation}
NAMES = {LENGTH: "length", REPETITION: "repetition", ENTROPY: "entropy", TRUNCATED: "truncation"}
