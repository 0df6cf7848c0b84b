"""What a mixture gave: how often each part and each wording was drawn, in how many epochs, about how many tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import islice

import numpy as np

from rlhf_cluster.data.draws import Draws
from rlhf_cluster.data.mixture import Mixture

NUM_MEASURED = 256
"""Draws of a part whose tokens are counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PartReport:
    name: str
    num_rows: int
    rate: float
    """The share it is drawn at."""
    num_drawn: int
    share: float
    """Of the draws so far; nears `rate`."""
    epochs: float
    """How often its rows were gone through, 1.5 for one and a half times."""
    forms: Mapping[str, int]
    """How often each wording was drawn, by names such as `few_shot/2`; empty where its rows are left as they are."""
    tokens_per_example: float | None
    """Prompt and completion, where there is one: the mean of its first NUM_MEASURED draws. None without any."""
    num_tokens: int | None
    """`num_drawn` times that, so an estimate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MixtureReport:
    num_drawn: int
    parts: tuple[PartReport, ...]


def report_of(draws: Draws, num: int, *, num_tokens: Callable[[int], int] | None = None) -> MixtureReport | None:
    """As `mixture_report`; None where nothing is mixed."""
    return mixture_report(draws, num, num_tokens=num_tokens) if isinstance(draws, Mixture) else None


def mixture_report(mixture: Mixture, num: int, *, num_tokens: Callable[[int], int] | None = None) -> MixtureReport:
    """About the first `num` draws. `num_tokens` gives the tokens of the n-th; it is asked about a few of each part."""
    counts = mixture.counts(num).tolist()
    parts = []
    for index, (part, num_drawn) in enumerate(zip(mixture.parts, counts, strict=True)):
        mean = None if num_tokens is None else _mean_tokens(mixture, index, num, num_tokens)
        parts.append(
            PartReport(
                name=part.name,
                num_rows=len(part.rows),
                rate=float(mixture.rates[index]),
                num_drawn=num_drawn,
                share=num_drawn / num if num else 0.0,
                epochs=num_drawn / len(part.rows),
                forms=dict(mixture.forms_of(index, num)),
                tokens_per_example=mean,
                num_tokens=None if mean is None else round(mean * num_drawn),
            )
        )
    return MixtureReport(num_drawn=num, parts=tuple(parts))


def _mean_tokens(mixture: Mixture, index: int, num: int, num_tokens: Callable[[int], int]) -> float | None:
    measured = [num_tokens(number) for number in islice(mixture.numbers_of(index, num), NUM_MEASURED)]
    return float(np.mean(measured)) if measured else None
