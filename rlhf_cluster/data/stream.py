"""The endless, reproducible stream of prompts: every row once an epoch, in an order that follows from (seed, epoch).

A prompt's place in the stream says which prompt it is, so a resumed job needs nothing but the number of the next one.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from rlhf_cluster.data.sources import Row
from rlhf_cluster.data.template import Tokenize
from rlhf_cluster.errors import DataError, PromptTooLong
from rlhf_cluster.records import Prompt


class PromptStream:
    """`stream[n]` is the n-th prompt, from 0 and without end. Rows are tokenised when they are asked for; `verify`
    tokenises them all. Holds for the same rows, seed and shuffle only."""

    def __init__(
        self, rows: Sequence[Row], tokenize: Tokenize, *, seed: int, max_prompt_tokens: int, shuffle: bool = True
    ) -> None:
        """`max_prompt_tokens` is the smaller of the user's bound and the context minus one token."""
        if not rows:
            raise DataError("a prompt stream needs at least one row")
        self._rows = rows
        self._tokenize = tokenize
        self._seed = seed
        self._shuffle = shuffle
        self._max_prompt_tokens = max_prompt_tokens
        # Under way are prompts of one epoch, and at its end of the next.
        self._order_of = lru_cache(maxsize=2)(self._epoch_order)

    def __getitem__(self, number: int) -> Prompt:
        """Raises `PromptTooLong` or `DataError` for a bad row."""
        row, epoch = self.row(number), number // len(self._rows)
        return self.prompt(row, prompt_id=f"{row.number}/{epoch}")

    def row(self, number: int) -> Row:
        """What the n-th prompt is made from."""
        epoch, index = divmod(number, len(self._rows))
        return self._rows[int(self._order_of(epoch)[index])]

    def prompt(self, row: Row, *, prompt_id: str) -> Prompt:
        """Any row, worded and bounded like those of the stream. Raises as `stream[n]` does."""
        return _prompt(row, self._tokenize, max_prompt_tokens=self._max_prompt_tokens, prompt_id=prompt_id)

    @property
    def num_rows(self) -> int:
        return len(self._rows)

    def verify(self) -> None:
        """Tokenise every row once, so that a bad one is named before the job starts and not hours into it."""
        for row in self._rows:
            self.prompt(row, prompt_id="")

    def _epoch_order(self, epoch: int) -> np.ndarray:
        if not self._shuffle:
            return np.arange(len(self._rows))
        return np.random.default_rng([self._seed, epoch]).permutation(len(self._rows))


def prompts_in_order(rows: Sequence[Row], tokenize: Tokenize, *, max_prompt_tokens: int) -> list[Prompt]:
    """Every row once, in order, for evaluation; ids are `"eval-<row>/0"`, so that none is an id of the stream."""
    return [
        _prompt(row, tokenize, max_prompt_tokens=max_prompt_tokens, prompt_id=f"eval-{row.number}/0") for row in rows
    ]


def _prompt(row: Row, tokenize: Tokenize, *, max_prompt_tokens: int, prompt_id: str) -> Prompt:
    text, token_ids = tokenize(row)
    if len(token_ids) > max_prompt_tokens:
        raise PromptTooLong(
            f"row {row.number}: its prompt is {len(token_ids)} tokens long, at most {max_prompt_tokens} fit; shorten "
            "or remove the row, or raise data.max_prompt_tokens or the rollout worker's max_context"
        )
    return Prompt(prompt_id=prompt_id, text=text, token_ids=token_ids, item=row.item)
