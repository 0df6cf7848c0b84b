"""Instruction formats: one data set worded in many ways, as FLAN does it (Wei et al. 2021, arXiv:2109.01652; Longpre
et al. 2023, arXiv:2301.13688): templates, exemplars in front, reasoning before the answer, questions asked backwards.

How the n-th example is worded follows from numbers drawn for it, so that it can be told without wording it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from string import Formatter
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import AfterValidator, Field, PositiveInt

from rlhf_cluster.errors import ConfigError, DataError, did_you_mean
from rlhf_cluster.settings import Settings

if TYPE_CHECKING:
    from rlhf_cluster.data.sources import Row

NUM_DRAWN = 4
"""Uniform numbers that decide how one example is worded."""


def _with_columns(wording: str) -> str:
    for _, column, form, conversion in Formatter().parse(wording):
        if column is not None and (not column.isidentifier() or form or conversion):
            raise ConfigError(
                f"wording {wording!r}: a column is written as {{name}} and nothing more, and braces of the text itself "
                "as {{ and }}"
            )
    if not columns_of(wording):
        raise ConfigError(
            f"wording {wording!r} names no column, so every example would read the same: write {{prompt}}"
        )
    return wording


def columns_of(wording: str) -> list[str]:
    return [column for _, column, _, _ in Formatter().parse(wording) if column]


Wording = Annotated[str, AfterValidator(_with_columns)]
Wordings = Annotated[tuple[Wording, ...], Field(min_length=1)]
Probability = Annotated[float, Field(ge=0, le=1)]


class FewShot(Settings):
    """Solved examples in front of the question, from the training rows; never the question's own row, nor one that
    asks the same."""

    probability: Probability = 0.5
    """Share of the examples that get them."""
    num_exemplars: PositiveInt = 3
    """Fewer where the example would be too long."""
    joint: str = "\n"
    """Between an exemplar's question and its answer."""
    separator: str = "\n\n"
    """After every exemplar."""


class ChainOfThought(Settings):
    """The reasoning before the answer (Wei et al. 2022, arXiv:2201.11903), asked for by a trigger."""

    probability: Probability = 0.5
    """Share of the examples, those that are asked backwards left out."""
    rationale_column: str = "rationale"
    """Holds the reasoning; every row needs it."""
    trigger: str = "\nLet's think step by step."
    """Put after the question (Kojima et al. 2022, arXiv:2205.11916)."""
    answer: Wording = "{rationale}\nThe answer is {completion}"
    """How reasoning and answer are put together."""


class Inversion(Settings):
    """The answer given and the question asked for."""

    probability: Probability = 0.1
    """Share of the examples."""
    prompts: Wordings = ("What could have been asked, if this is the answer?\n{completion}",)
    """One of them is drawn."""


class Instructions(Settings):
    """How the rows of a data set are worded."""

    prompts: Wordings = ("{prompt}",)
    """Ways to put the question; one is drawn for every example. `{name}` stands for a column."""
    answer_column: str = "completion"
    """Holds the answer; wordings call it `{completion}`."""
    few_shot: FewShot | None = None
    """Solved examples in front; none when not given."""
    chain_of_thought: ChainOfThought | None = None
    """Reasoning before the answer; none when not given."""
    inversion: Inversion | None = None
    """The question asked backwards; never when not given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Forms:
    """How each of N examples is worded."""

    is_inverted_N: np.ndarray
    has_exemplars_N: np.ndarray
    has_rationale_N: np.ndarray
    wording_N: np.ndarray
    """int64, which of the prompts, or of the inversion's where it is inverted."""

    def name(self, n: int) -> str:
        """Such as `few_shot+chain_of_thought/2`: the form, and which wording."""
        form = "few_shot" if self.has_exemplars_N[n] else "zero_shot"
        form += "+chain_of_thought" if self.has_rationale_N[n] else ""
        form += "+inverted" if self.is_inverted_N[n] else ""
        return f"{form}/{self.wording_N[n]}"


def forms(instructions: Instructions, drawn_N4: np.ndarray) -> Forms:
    """From uniform numbers in [0, 1), four an example, to the forms: each has its own probability, apart from the
    others; what is asked backwards has no reasoning, which would give the question away."""

    def happens(part: FewShot | ChainOfThought | Inversion | None, column: int) -> np.ndarray:
        return drawn_N4[:, column] < (part.probability if part else 0.0)

    is_inverted_N = happens(instructions.inversion, 0)
    num_backwards = len(instructions.inversion.prompts) if instructions.inversion else 0
    num_wordings_N = np.where(is_inverted_N, num_backwards, len(instructions.prompts))
    return Forms(
        is_inverted_N=is_inverted_N,
        has_exemplars_N=happens(instructions.few_shot, 1),
        has_rationale_N=happens(instructions.chain_of_thought, 2) & ~is_inverted_N,
        wording_N=(drawn_N4[:, 3] * num_wordings_N).astype(np.int64),
    )


class Worder:
    """Words rows. `training_rows` are those that exemplars come from: never held-out ones."""

    def __init__(self, instructions: Instructions, *, training_rows: Sequence[Row]) -> None:
        """Raises `DataError` when there are too few different questions to draw exemplars from."""
        self.instructions = instructions
        self._asked: dict[str, list[Row]] = {}
        if instructions.few_shot:
            for row in training_rows:
                self._asked.setdefault(_question(row).strip(), []).append(row)
            needed = instructions.few_shot.num_exemplars + 1
            if len(self._asked) < needed:
                raise DataError(
                    f"few_shot.num_exemplars = {needed - 1} needs {needed} training rows that ask different things, "
                    f"and there are {len(self._asked)}: lower it or add rows"
                )
        self._questions = list(self._asked)
        self._place = {question: place for place, question in enumerate(self._questions)}

    def check(self, row: Row) -> None:
        """Raises `DataError` when the row lacks a column that some wording names."""
        columns = self._columns(row)
        cot, inversion = self.instructions.chain_of_thought, self.instructions.inversion
        for wording in (*self.instructions.prompts, *(inversion.prompts if inversion else ())):
            _worded(wording, columns, row)
        if cot:
            _worded(cot.answer, self._reasoned(columns, row), row)
        if self.instructions.few_shot or inversion:
            _worded("{completion}", columns, row)

    def worded(self, row: Row, form: Forms, n: int, *, generator: np.random.Generator) -> list[Row]:
        """The row in the n-th form, and after it the plainer ones that take its place where it is too long: one
        exemplar fewer each time, and at last the row as it was."""
        question, answer = self._put(row, form, n)
        few_shot = self.instructions.few_shot
        solved = []
        if few_shot and form.has_exemplars_N[n]:
            for exemplar in self.exemplars(row, generator):
                asked, told = self._put(exemplar, form, n)
                solved.append(f"{asked}{few_shot.joint}{told}{few_shot.separator}")
        item = row.item if answer is None else {**row.item, "completion": answer}
        rows = [replace(row, prompt="".join(solved[start:]) + question, item=item) for start in range(len(solved) + 1)]
        return [*rows, replace(row, item=self._plain_item(row))]

    def exemplars(self, row: Row, generator: np.random.Generator) -> list[Row]:
        """Different questions, none of them the row's; of a question that several rows ask, one of those rows."""
        assert self.instructions.few_shot is not None
        own = self._place.get(_question(row).strip())
        num_others = len(self._questions) - (own is not None)
        picked = generator.choice(num_others, size=self.instructions.few_shot.num_exemplars, replace=False)
        if own is not None:
            picked = picked + (picked >= own)
        rows = (self._asked[self._questions[place]] for place in picked.tolist())
        return [same[int(generator.integers(len(same)))] for same in rows]

    def _put(self, row: Row, form: Forms, n: int) -> tuple[str, str | None]:
        """(question, answer) of one row in the n-th form, without exemplars; no answer where the row has none."""
        columns, wording, cot = self._columns(row), int(form.wording_N[n]), self.instructions.chain_of_thought
        if form.is_inverted_N[n]:
            assert self.instructions.inversion is not None
            return _worded(self.instructions.inversion.prompts[wording], columns, row), _question(row)
        question = _worded(self.instructions.prompts[wording], columns, row)
        if cot and form.has_rationale_N[n]:
            return question + cot.trigger, _worded(cot.answer, self._reasoned(columns, row), row)
        return question, columns.get("completion")

    def _columns(self, row: Row) -> dict[str, Any]:
        columns = {**row.item, "prompt": _question(row)}
        answer = row.item.get(self.instructions.answer_column)
        return columns if answer is None else {**columns, "completion": str(answer)}

    def _plain_item(self, row: Row) -> Mapping[str, Any]:
        answer = self._columns(row).get("completion")
        return row.item if answer is None else {**row.item, "completion": answer}

    def _reasoned(self, columns: Mapping[str, Any], row: Row) -> dict[str, Any]:
        assert self.instructions.chain_of_thought is not None
        name = self.instructions.chain_of_thought.rationale_column
        return {**columns, "rationale": _worded("{" + name + "}", columns, row)}


def _question(row: Row) -> str:
    if not isinstance(row.prompt, str):
        raise DataError(f"{row.where} holds chat messages; instructions can only word texts")
    return row.prompt


def _worded(wording: str, columns: Mapping[str, Any], row: Row) -> str:
    for column in columns_of(wording):
        if columns.get(column) is None:
            raise DataError(
                f"{row.where} has no column {column!r}{did_you_mean(column, columns)}, which the wording {wording!r} "
                f"names; it has {', '.join(columns)}"
            )
    return wording.format_map(columns)
