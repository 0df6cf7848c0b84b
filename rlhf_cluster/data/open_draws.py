"""From a source as a job file says it to draws: the rows of one data set, or a mixture of several."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from rlhf_cluster.data.draws import Draws, Epochs
from rlhf_cluster.data.instructions import Worder
from rlhf_cluster.data.mixture import Mixture, Part, rates
from rlhf_cluster.data.settings import MixturePart, MixtureSource, Source
from rlhf_cluster.data.sources import Row, read_rows
from rlhf_cluster.errors import DataError

Admit = Callable[[list[Row]], list[Row]]
"""Rows as read -> those that may be drawn."""


def open_draws(
    source: Source,
    *,
    seed: int,
    shuffle: bool = True,
    training: Source | None = None,
    admit: Admit = lambda rows: rows,
) -> Draws:
    """Read `source`. `training` is `data.train` where `source` is held out: exemplars come from there alone.

    Raises `DataError` naming the part and the row at fault.
    """
    if not isinstance(source, MixtureSource):
        return Epochs(admit(read_rows(source)), seed=seed, shuffle=shuffle)
    parts = [_part(part, training=training, admit=admit) for part in source.parts]
    if source.parts[0].weight is not None:
        weights = np.array([part.weight for part in source.parts], dtype=np.float64)
        shares = weights / weights.sum()
    else:
        sizes = [len(part.rows) for part in parts]
        shares = rates(sizes, max_rows=source.max_rows, temperature=source.temperature)
    return Mixture(parts, rates=shares, seed=seed, shuffle=shuffle)


def _part(part: MixturePart, *, training: Source | None, admit: Admit) -> Part:
    rows = admit(read_rows(part.source, part=part.name))
    if part.instructions is None:
        return Part(name=part.name, rows=rows)
    exemplars: Sequence[Row] = rows
    if part.instructions.few_shot and training is not None:
        exemplars = read_rows(_part_of_training(training, part.name).source, part=part.name)
    worder = Worder(part.instructions, training_rows=exemplars)
    for row in (*rows, *exemplars):
        worder.check(row)
    return Part(name=part.name, rows=rows, worder=worder)


def _part_of_training(training: Source, name: str) -> MixturePart:
    parts = training.parts if isinstance(training, MixtureSource) else ()
    for part in parts:
        if part.name == name:
            return part
    raise DataError(
        f"the held-out part {name} has few_shot, whose exemplars are training rows, but data.train has no part of that "
        f"name; it has {', '.join(part.name for part in parts) or 'no parts'}: name it alike, or remove few_shot"
    )
