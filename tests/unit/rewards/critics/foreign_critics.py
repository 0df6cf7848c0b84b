"""Critics of another package, as a job names them by import path."""

from __future__ import annotations

from collections.abc import Sequence

from rlhf_cluster.data.constitution import Principle
from rlhf_cluster.rewards.critics.base import Case, Critique


class Shouting:
    """Finds `mark` in an answer and takes it out, whatever the principle."""

    def __init__(self, *, mark: str = "!") -> None:
        self.mark = mark

    def check(self, principles: Sequence[Principle]) -> None:
        pass

    async def critique(self, cases: Sequence[Case]) -> list[Critique]:
        return [Critique(text="It shouts.", violated=self.mark in case.answer) for case in cases]

    async def revise(self, cases: Sequence[Case], critiques: Sequence[Critique]) -> list[str]:
        return [case.answer.replace(self.mark, "") for case in cases]

    async def close(self) -> None:
        pass


class OnlyCritique:
    async def critique(self, cases: Sequence[Case]) -> list[Critique]:
        return []
