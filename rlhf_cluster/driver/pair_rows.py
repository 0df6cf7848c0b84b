"""The file `preferences.jsonl` of a job, and what its rows say together.

A row has the columns of `data.preferences.Preference`, and where they are known `prompt_id`, `p_a` (how sure whoever
labelled was of a), `score_a` and `score_b` (the job's rewards), `position_bias` and `reason` (a judge's), `num_tokens`
and `finish_reasons` of the two, and `row` (the other columns of the prompt's own row).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

FILE_NAME = "preferences.jsonl"
DECIDED = ("a", "b")


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
        if "position_bias" in row:
            self._biases.append(row["position_bias"])
        if row["label"] not in DECIDED:
            return
        sign = 1 if row["label"] == "a" else -1
        self._ceilings.append(max(row["p_a"], 1 - row["p_a"]))
        if {"score_a", "score_b"} <= row.keys():
            self._gaps.append(sign * (row["score_a"] - row["score_b"]))
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
