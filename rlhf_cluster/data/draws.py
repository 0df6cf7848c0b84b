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


class Draws(Protocol):
    """`draws[n]` is the n-th, from 0 and without end; a pure function of n."""

    def __getitem__(self, number: int) -> Drawn: ...

    @property
    def num_rows(self) -> int:
        """Rows that are drawn from: an epoch."""
        ...


class Epochs:
    """Every row once an epoch, in an order that follows from (seed, epoch), or in the source's own."""

    def __init__(self, rows: Sequence[Row], *, seed: int | Sequence[int], shuffle: bool = True) -> None:
        if not rows:
            raise DataError("nothing can be drawn from a source without rows")
        self._rows = rows
        self._seed = [seed] if isinstance(seed, int) else list(seed)
        self._shuffle = shuffle
        # Under way are examples of one epoch, and at its end of the next.
        self._order_of = lru_cache(maxsize=2)(self._epoch_order)

    def __getitem__(self, number: int) -> Drawn:
        epoch, index = divmod(number, len(self._rows))
        row = self._rows[int(self._order_of(epoch)[index])]
        return Drawn(row=row, prompt_id=f"{row.number}/{epoch}")

    @property
    def num_rows(self) -> int:
        return len(self._rows)

    def _epoch_order(self, epoch: int) -> np.ndarray:
        if not self._shuffle:
            return np.arange(len(self._rows))
        return np.random.default_rng([*self._seed, epoch]).permutation(len(self._rows))
