"""What a critic is shown and what it says: whether an answer breaks a principle, and what it should be instead."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from rlhf_cluster.data.constitution import Principle
from rlhf_cluster.rewards.sample import Failure


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """An answer to be held against one principle."""

    prompt: str
    """As a person reads it."""
    answer: str
    principle: Principle


@dataclass(frozen=True, slots=True, kw_only=True)
class Critique:
    text: str
    violated: bool


class Critic(Protocol):
    """Belongs to one event loop. Raises for nothing that an answer or a service does: that is a `Failure`, and an
    answer on which the critic failed is neither good nor bad."""

    def check(self, principles: Sequence[Principle]) -> None:
        """Raise `ConfigError` for a principle that this critic does not know."""
        ...

    async def critique(self, cases: Sequence[Case]) -> list[Critique | Failure]:
        """One for each, in order."""
        ...

    async def revise(self, cases: Sequence[Case], critiques: Sequence[Critique]) -> list[str | Failure]:
        """A better answer for each, in order."""
        ...

    async def close(self) -> None: ...
