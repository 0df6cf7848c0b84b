"""Which row comes n-th, endlessly: an order that follows from the job's seed, so that resuming needs nothing but n."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np

from rlhf_cluster.data.sources import Row
from rlhf_cluster.errors import DataError


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    row: Row
    prompt_id: str
    """`"<row>/<epoch>"`, no two alike."""
    plainer: Sequence[Row] = ()
    """Shorter wordings of it, each a substitute where those before it are too long; the last is the row as read."""

    @property
    def key(self) -> str:
        """What stands before the slash: the same for the same tokens only. A row's own, unless it was worded."""
        return self.prompt_id.partition("/")[0]


class Draws(Protocol):
    """`draws[n]` is the n-th, from 0 and without end; a pure function of n."""

    def __getitem__(self, number: int) -> Drawn: ...

    @property
    def rows(self) -> Sequence[Row]:
        """All that is drawn from, as read."""
        ...


class Epochs:
    """Every row once an epoch, in an order that follows from (seed, epoch), or in the source's own."""

    def __init__(self, rows: Sequence[Row], *, seed: int | Sequence[int], shuffle: bool = True) -> None:
        if not rows:
            raise DataError("nothing can be drawn from a source without rows")
        self.rows = rows
        self._seed = [seed] if isinstance(seed, int) else list(seed)
        self._shuffle = shuffle
        # Under way are examples of one epoch, and at its end of the next.
        self._order_of = lru_cache(maxsize=2)(self._epoch_order)

    def __getitem__(self, number: int) -> Drawn:
        row, epoch = self.at(number)
        return Drawn(row=row, prompt_id=f"{row.key}/{epoch}")

    def at(self, number: int) -> tuple[Row, int]:
        """The n-th row, and the epoch it is drawn in, from 0."""
        epoch, index = divmod(number, len(self.rows))
        return self.rows[int(self._order_of(epoch)[index])], epoch

    def _epoch_order(self, epoch: int) -> np.ndarray:
        if not self._shuffle:
            return np.arange(len(self.rows))
        return np.random.default_rng([*self._seed, epoch]).permutation(len(self.rows))
