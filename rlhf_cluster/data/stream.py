"""The endless, reproducible stream of prompts: the rows of its draws, tokenised.

A prompt's place in the stream says which prompt it is, so a resumed job needs nothing but the number of the next one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rlhf_cluster.data.draws import Draws
from rlhf_cluster.data.mixture_report import MixtureReport, report_of
from rlhf_cluster.data.sources import Row
from rlhf_cluster.data.template import Tokenize
from rlhf_cluster.errors import PromptTooLong
from rlhf_cluster.records import Prompt


class PromptStream:
    """`stream[n]` is the n-th prompt, from 0 and without end. Rows are tokenised when they are asked for; `verify`
    tokenises them all. Holds for the same draws only."""

    def __init__(self, draws: Draws, tokenize: Tokenize, *, max_prompt_tokens: int) -> None:
        """`max_prompt_tokens` is the smaller of the user's bound and the context minus one token."""
        self._draws = draws
        self._tokenize = tokenize
        self._max_prompt_tokens = max_prompt_tokens

    def __getitem__(self, number: int) -> Prompt:
        """Raises `PromptTooLong` or `DataError` for a bad row."""
        return self._fitting(number)[1]

    def row(self, number: int) -> Row:
        """The row of the n-th prompt, in the wording that was taken, before any template."""
        return self._fitting(number)[0]

    def prompt(self, row: Row, *, prompt_id: str) -> Prompt:
        """Any row, tokenised and bounded like those of the stream. Raises as `stream[n]` does."""
        return self._first_that_fits([row], prompt_id=prompt_id)[1]

    @property
    def num_rows(self) -> int:
        return len(self._draws.rows)

    def report(self, num: int) -> MixtureReport | None:
        """What the first `num` prompts are of; None for a source that is no mixture."""
        return report_of(self._draws, num, num_tokens=lambda number: len(self[number].token_ids))

    def verify(self) -> None:
        """Tokenise every row once, so that a bad one is named before the job starts and not hours into it."""
        for row in self._draws.rows:
            self.prompt(row, prompt_id="")

    def _fitting(self, number: int) -> tuple[Row, Prompt]:
        drawn = self._draws[number]
        return self._first_that_fits([drawn.row, *drawn.plainer], prompt_id=drawn.prompt_id)

    def _first_that_fits(self, wordings: Sequence[Row], *, prompt_id: str) -> tuple[Row, Prompt]:
        for row in wordings:
            text, token_ids = self._tokenize(row)
            if len(token_ids) <= self._max_prompt_tokens:
                return row, Prompt(prompt_id=prompt_id, text=text, token_ids=token_ids, item=row.item)
        raise PromptTooLong(
            f"{row.where}: its prompt is {len(token_ids)} tokens long, at most {self._max_prompt_tokens} fit; shorten "
            "or remove the row, or raise data.max_prompt_tokens or the rollout worker's max_context"
        )


def prompts_once(stream: PromptStream) -> list[Prompt]:
    """As many prompts as there are rows, for evaluation; ids begin with `eval-`, so that none is an id of training."""
    prompts = (stream[number] for number in range(stream.num_rows))
    return [replace(prompt, prompt_id=f"eval-{prompt.prompt_id}") for prompt in prompts]
