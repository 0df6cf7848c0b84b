"""Several data sets as one endless stream: which part and which of its rows comes n-th follows from (seed, n).

The part is drawn at the mixture's rates, and every part is walked through in shuffled epochs of its own. Draws are
made in blocks, and what was drawn of each part before a block is remembered, so that the millionth draw costs a few
milliseconds once and the next ones nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from rlhf_cluster.data.draws import Drawn, Epochs
from rlhf_cluster.data.instructions import NUM_DRAWN, Forms, Worder, forms
from rlhf_cluster.data.sources import Row

BLOCK = 4096
"""Draws made at once."""


def rates(num_rows: Sequence[int], *, max_rows: int | None = None, temperature: float = 1.0) -> np.ndarray:
    """float64 [K], summing to 1: the shares of K parts, in proportion to `min(num_rows, max_rows) ** (1/temperature)`.

    Examples-proportional mixing with a limit, and temperature-scaled mixing, of T5 (Raffel et al. 2019,
    arXiv:1910.10683, section 3.5.2); FLAN uses the first. Temperature 1 is in proportion, infinity is equal shares.
    """
    counted = np.minimum(np.asarray(num_rows, dtype=np.float64), np.inf if max_rows is None else max_rows)
    # Taken relative to the largest, so that no power overflows at a small temperature.
    scaled = (counted / counted.max()) ** (1.0 / temperature)
    return scaled / scaled.sum()


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One data set of a mixture, read."""

    name: str
    rows: Sequence[Row]
    worder: Worder | None = None
    """Words its rows; None leaves them as they are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """`BLOCK` draws in a row."""

    part_N: np.ndarray
    """int64, which part each is of."""
    place_N: np.ndarray
    """int64, how many of that part came before it, from the beginning of the stream."""
    drawn_N4: np.ndarray
    """float64 in [0, 1): decide how each is worded."""


class Mixture:
    """`mixture[n]` is the n-th draw, from 0 and without end. Holds for the same parts, rates and seed only."""

    def __init__(self, parts: Sequence[Part], *, rates: np.ndarray, seed: int, shuffle: bool = True) -> None:
        """`rates` float64 [K] sum to 1. `shuffle` is about the order within the parts."""
        self.parts = tuple(parts)
        self.rows = [row for part in self.parts for row in part.rows]
        self.rates = rates
        self._bounds = np.cumsum(rates)[:-1]
        self._seed = seed
        self._walks = [Epochs(part.rows, seed=(seed, index), shuffle=shuffle) for index, part in enumerate(self.parts)]
        self._num_before = [np.zeros(len(self.parts), dtype=np.int64)]
        self._block = lru_cache(maxsize=4)(self._drawn_block)

    def __getitem__(self, number: int) -> Drawn:
        block, n = self._block(number // BLOCK), number % BLOCK
        part = self.parts[block.part_N[n]]
        row, epoch = self._walks[block.part_N[n]].at(int(block.place_N[n]))
        if part.worder is None:
            return Drawn(row=row, prompt_id=f"{row.key}/{epoch}")
        form = forms(part.worder.instructions, block.drawn_N4[n : n + 1])
        generator = np.random.default_rng([self._seed, len(self.parts), number])
        worded, *plainer = part.worder.worded(row, form, 0, generator=generator)
        # Worded anew every time: the tokens are those of this draw alone.
        return Drawn(row=worded, prompt_id=f"{row.key}@{number}/{epoch}", plainer=plainer)

    def counts(self, number: int) -> np.ndarray:
        """int64 [K], how many of the first `number` draws are of each part."""
        index, n = divmod(number, BLOCK)
        block = self._block(index)
        return self._num_before[index] + np.bincount(block.part_N[:n], minlength=len(self.parts))

    def numbers_of(self, index: int, number: int) -> Iterator[int]:
        """Those of the first `number` draws that are of a part, in order."""
        for start in range(0, number, BLOCK):
            block = self._block(start // BLOCK)
            yield from (start + np.flatnonzero(block.part_N[: number - start] == index)).tolist()

    def forms_of(self, index: int, number: int) -> list[tuple[str, int]]:
        """How often each form of a part was drawn among the first `number`, by name, most frequent first."""
        worder = self.parts[index].worder
        if worder is None:
            return []
        totals: dict[str, int] = {}
        for start in range(0, number, BLOCK):
            block = self._block(start // BLOCK)
            is_its = block.part_N[: number - start] == index
            for name, count in _tally(forms(worder.instructions, block.drawn_N4[: number - start][is_its])):
                totals[name] = totals.get(name, 0) + count
        return sorted(totals.items(), key=lambda total: (-total[1], total[0]))

    def _drawn_block(self, index: int) -> Block:
        for before in range(len(self._num_before) - 1, index):
            part_N, _ = self._uniform(before)
            self._num_before.append(self._num_before[before] + np.bincount(part_N, minlength=len(self.parts)))
        part_N, drawn_N4 = self._uniform(index)
        place_N = np.empty(BLOCK, dtype=np.int64)
        for part, num_before in enumerate(self._num_before[index]):
            is_its = part_N == part
            place_N[is_its] = num_before + np.arange(np.count_nonzero(is_its))
        return Block(part_N=part_N, place_N=place_N, drawn_N4=drawn_N4)

    def _uniform(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """(part int64 [BLOCK], the wordings' numbers [BLOCK, 4]) of one block."""
        generator = np.random.default_rng([self._seed, len(self.parts) + 1, index])
        part_N = np.searchsorted(self._bounds, generator.random(BLOCK), side="right")
        return part_N, generator.random((BLOCK, NUM_DRAWN))


def _tally(of: Forms) -> list[tuple[str, int]]:
    """(name, how often) of the forms that occur."""
    key_N = ((of.wording_N * 2 + of.is_inverted_N) * 2 + of.has_exemplars_N) * 2 + of.has_rationale_N
    _, first, count = np.unique(key_N, return_index=True, return_counts=True)
    return [(of.name(n), num) for n, num in zip(first.tolist(), count.tolist(), strict=True)]
