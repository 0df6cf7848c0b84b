"""The rows of `revisions.jsonl`: answers that were criticised and revised, round by round; and the file's figures."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from rlhf_cluster.data.chats import Messages

FILE_NAME = "revisions.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One principle that the answer of the round before was held against."""

    principle: str
    principle_version: int
    critique: str
    violated: bool
    revision: str | None
    """None where nothing was violated."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Revision:
    prompt_id: str
    prompt: str | Messages
    """Before any template."""
    original: str
    """What the policy answered."""
    rounds: tuple[Round, ...]
    item: Mapping[str, Any]
    """The other columns of the prompt's row."""
    provenance: Mapping[str, Any]

    @property
    def final(self) -> str:
        revisions = [each.revision for each in self.rounds if each.revision is not None]
        return revisions[-1] if revisions else self.original

    def row(self) -> dict[str, Any]:
        """The columns of the file; `prompt` and `completion` are what `sft` learns from."""
        return {
            "prompt_id": self.prompt_id,
            "prompt": self.prompt,
            "completion": self.final,
            "original": self.original,
            "revised": self.final != self.original,
            "rounds": [
                {
                    "principle": each.principle,
                    "principle_version": each.principle_version,
                    "critique": each.critique,
                    "violated": each.violated,
                    "revision": each.revision,
                }
                for each in self.rounds
            ],
            "row": self.item,
            "provenance": self.provenance,
        }


class RevisionFigures:
    """Sums over rows, those of former drivers of the job included."""

    def __init__(self) -> None:
        self._revised: list[bool] = []
        self._violated: dict[str, list[bool]] = defaultdict(list)
        """By principle, over its critiques."""

    def add(self, row: Mapping[str, Any]) -> None:
        self._revised.append(row["revised"])
        for each in row["rounds"]:
            self._violated[each["principle"]].append(each["violated"])

    def metrics(self) -> dict[str, float]:
        figures = {
            f"constitution/violated/{principle}": float(np.mean(violated))
            for principle, violated in self._violated.items()
        }
        if self._revised:
            figures["constitution/revised_rate"] = float(np.mean(self._revised))
        return figures | {"constitution/num_answers": float(len(self._revised))}
