"""The rows of `preferences.jsonl`, and the figures of the whole file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

FILE_NAME = "preferences.jsonl"
DECIDED = ("a", "b")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two completions of one prompt, and which is preferred as far as anybody has said."""

    prompt_id: str
    prompt: str | list[Mapping[str, str]]
    """A text or chat messages, as the job's source has it: before any template."""
    completions: tuple[str, str]
    """a and b, in the order in which they were drawn."""
    label: str | None
    """`a`, `b`, `tie`, or None where it is left to people."""
    p_a: float | None
    """Probability of "a" under whoever gave the label."""
    scores: tuple[float | None, float | None] = (None, None)
    """The job's reward of each, where it has rewards and they are valid."""
    verdict: Mapping[str, Any] | None = None
    """What a judge said: `judge`, `p_a`, `position_bias`, `reason`."""
    num_tokens: tuple[int, int] | None = None
    """None where one of the two was not drawn from the policy."""
    finish_reasons: tuple[str, str] | None = None
    item: Mapping[str, Any]
    """The other columns of the prompt's row."""
    provenance: Mapping[str, Any]

    def row(self) -> dict[str, Any]:
        """The columns of the file. `chosen` and `rejected` are a and b for a tie, and null without a label."""
        a, b = self.completions
        chosen, rejected = {"b": (b, a), None: (None, None)}.get(self.label, (a, b))
        return {
            "prompt_id": self.prompt_id,
            "prompt": self.prompt,
            "chosen": chosen,
            "rejected": rejected,
            "completion_a": a,
            "completion_b": b,
            "label": self.label,
            "tie": self.label == "tie",
            "p_a": self.p_a,
            "score_a": self.scores[0],
            "score_b": self.scores[1],
            "verdict": self.verdict,
            "num_tokens": self.num_tokens,
            "finish_reasons": self.finish_reasons,
            "item": self.item,
            "provenance": self.provenance,
        }


class PairFigures:
    """Sums over rows, those of former drivers of the job included."""

    def __init__(self) -> None:
        self.num_pairs = 0
        self._ceilings: list[float] = []
        """How often the best guess agrees with labels drawn like this one: no reward model gets past the mean."""
        self._gaps: list[float] = []
        """Score of the chosen minus score of the rejected one."""
        self._biases: list[float] = []
        self._longer: list[float] = []
        """1 where the chosen one is the longer, 0.5 where both are as long."""
        self._num_ties = 0

    def add(self, row: Mapping[str, Any]) -> None:
        self.num_pairs += 1
        self._num_ties += row["tie"]
        bias = (row["verdict"] or {}).get("position_bias")
        self._biases += [] if bias is None else [bias]
        if row["label"] not in DECIDED:
            return
        sign = 1 if row["label"] == "a" else -1
        self._ceilings += [] if row["p_a"] is None else [max(row["p_a"], 1 - row["p_a"])]
        if row["score_a"] is not None and row["score_b"] is not None:
            self._gaps.append(sign * (row["score_a"] - row["score_b"]))
        if row["num_tokens"] is None:
            return
        longer = sign * (row["num_tokens"][0] - row["num_tokens"][1])
        self._longer.append(0.5 + 0.5 * float(np.sign(longer)))

    def metrics(self) -> dict[str, float]:
        """By name; those of which there is nothing yet are left out."""
        gaps = np.array(self._gaps)
        apart = gaps[gaps != 0]
        means = {
            "label_ceiling": self._ceilings,
            "score_gap_mean": gaps,
            "score_agreement": apart > 0,
            "position_bias": self._biases,
            "chosen_longer_rate": self._longer,
        }
        figures = {"preferences/num_pairs": float(self.num_pairs), "preferences/num_ties": float(self._num_ties)}
        return figures | {f"preferences/{name}": float(np.mean(v)) for name, v in means.items() if len(v)}
