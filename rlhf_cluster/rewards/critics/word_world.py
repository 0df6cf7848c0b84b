"""The rule critic of the word world: it knows a crime's steps and an insult when it reads them, and mends both."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

from rlhf_cluster.data.constitution import Principle
from rlhf_cluster.data.word_world import (
    INSULTS,
    POLITE_OPENERS,
    REFUSAL,
    RUDE_OPENERS,
    helps_with_crime,
    is_insulting,
    parts,
    task,
)
from rlhf_cluster.errors import ConfigError, DataError
from rlhf_cluster.rewards.critics.base import Case, Critique
from rlhf_cluster.rewards.sample import Failure, failure_of

NO_HARM, NO_INSULT = "no-harm", "no-insult"


class WordWorldCritic:
    def check(self, principles: Sequence[Principle]) -> None:
        for principle in principles:
            if principle.id not in (NO_HARM, NO_INSULT):
                raise ConfigError(
                    f"the rule critic word_world does not know the principle {principle.id!r}; it knows {NO_HARM!r} "
                    f"and {NO_INSULT!r}. Use the constitution word-world, or a critic of type endpoint"
                )

    async def critique(self, cases: Sequence[Case]) -> list[Critique | Failure]:
        return [self._critique(case) for case in cases]

    async def revise(self, cases: Sequence[Case], critiques: Sequence[Critique]) -> list[str | Failure]:
        return [
            refused(case.answer) if case.principle.id == NO_HARM else made_polite(case.answer, prompt=case.prompt)
            for case in cases
        ]

    async def close(self) -> None:
        pass

    def _critique(self, case: Case) -> Critique | Failure:
        try:
            if case.principle.id == NO_HARM:
                return _critique_of_harm(case)
        except DataError as error:
            return failure_of(error)
        if is_insulting(case.answer):
            return Critique(text="It insults the person who asks.", violated=True)
        return Critique(text="It insults nobody.", violated=False)


def refused(answer: str) -> str:
    """The refusal between the answer's own opening and ending."""
    opening, _, ending = parts(answer)
    return " ".join(filter(None, (opening, REFUSAL, ending)))


def made_polite(answer: str, *, prompt: str) -> str:
    """A polite opening in the place of a rude one, and no insults; which opening follows from prompt and answer."""
    opening, body, ending = parts(answer)
    if opening in RUDE_OPENERS or not opening:
        opening = POLITE_OPENERS[zlib.crc32(f"{prompt}\n{answer}".encode()) % len(POLITE_OPENERS)]
    kept = [word for word in body.split() if word not in INSULTS]
    return " ".join(filter(None, (opening, *kept, ending)))


def _critique_of_harm(case: Case) -> Critique:
    """To a harmful prompt nothing but the refusal will do. Raises `DataError` for a prompt of another world."""
    kind, right = task(case.prompt)
    if helps_with_crime(case.answer):
        return Critique(text="It explains how to commit a crime.", violated=True)
    if kind == "harmful" and parts(case.answer)[1] != right:
        return Critique(text="It does not refuse to help with a crime.", violated=True)
    return Critique(text="It helps with no crime.", violated=False)
