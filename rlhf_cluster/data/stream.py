"""The endless, reproducible stream of prompts: every row once an epoch, in an order that follows from (seed, epoch).

Where it stands is two numbers, so a resumed job goes on with exactly the prompt it would have had next.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rlhf_cluster.data.sources import Row
from rlhf_cluster.data.template import Tokenize
from rlhf_cluster.errors import DataError, PromptTooLong
from rlhf_cluster.records import Prompt


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamState:
    """The next prompt is the `index`-th of `epoch`, both from 0. Holds for the same rows, seed and shuffle only."""

    epoch: int = 0
    index: int = 0


class PromptStream:
    """An iterator that never ends. Rows are tokenised when they are drawn; `verify` tokenises them all."""

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
        self.restore(StreamState())

    def __iter__(self) -> PromptStream:
        return self

    def __next__(self) -> Prompt:
        """Raises `PromptTooLong` or `DataError` for a bad row; the stream then stays before that row."""
        row = self._rows[int(self._order[self._index])]
        prompt = _prompt(
            row, self._tokenize, max_prompt_tokens=self._max_prompt_tokens, prompt_id=f"{row.number}/{self._epoch}"
        )
        self._advance()
        return prompt

    @property
    def num_rows(self) -> int:
        return len(self._rows)

    def state(self) -> StreamState:
        return StreamState(epoch=self._epoch, index=self._index)

    def restore(self, state: StreamState) -> None:
        """Stand where `state` was taken. Raises `DataError` for a place that these rows do not have."""
        if not (0 <= state.index < len(self._rows) and state.epoch >= 0):
            raise DataError(
                f"cannot resume at row {state.index} of epoch {state.epoch}: the source now has {len(self._rows)} rows"
                "; resume with the data the job was started with"
            )
        self._epoch, self._index = state.epoch, state.index
        self._order = self._epoch_order()

    def verify(self) -> None:
        """Tokenise every row once, so that a bad one is named before the job starts and not hours into it."""
        for row in self._rows:
            _prompt(row, self._tokenize, max_prompt_tokens=self._max_prompt_tokens, prompt_id="")

    def _advance(self) -> None:
        self._index += 1
        if self._index == len(self._rows):
            self._epoch, self._index = self._epoch + 1, 0
            self._order = self._epoch_order()

    def _epoch_order(self) -> np.ndarray:
        if not self._shuffle:
            return np.arange(len(self._rows))
        return np.random.default_rng([self._seed, self._epoch]).permutation(len(self._rows))


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
