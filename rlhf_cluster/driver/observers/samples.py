"""Completions with their rewards as Parquet, one row a completion.

One file a step, `samples/step-000012.parquet`, and one an evaluation, `samples/eval-000000.parquet`. Whole files only:
each is written beside its name and renamed. Read them all with `pyarrow.dataset.dataset("samples")` or a data frame
library.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rlhf_cluster.records import RolloutGroup
from rlhf_cluster.records.events import Evaluated, Event, StepDone


class Samples:
    def __init__(self, job_dir: Path) -> None:
        self._dir = job_dir / "samples"

    def on_event(self, event: Event) -> None:
        if isinstance(event, StepDone) and event.groups:
            self._write(f"step-{event.step:06d}.parquet", rows(event.groups, step=event.step))
        elif isinstance(event, Evaluated) and event.groups:
            self._write(f"eval-{event.step:06d}.parquet", rows(event.groups, step=event.step))

    def close(self) -> None:
        pass

    def _write(self, name: str, table: list[dict[str, Any]]) -> None:
        import pyarrow
        import pyarrow.parquet

        self._dir.mkdir(parents=True, exist_ok=True)
        unfinished = self._dir / f".{name}.tmp"
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(table), unfinished)
        os.replace(unfinished, self._dir / name)


def rows(groups: Sequence[RolloutGroup], *, step: int) -> list[dict[str, Any]]:
    """One row a completion, in the order of the groups; every row has the same columns."""
    # Breakdown parts of all groups, because Parquet takes its columns from the first row.
    parts = sorted({name for group in groups for name in group.breakdown})
    return [_row(group, index, step=step, parts=parts) for group in groups for index in range(group.num_completions)]


def _row(group: RolloutGroup, index: int, *, step: int, parts: Sequence[str]) -> dict[str, Any]:
    end = int(group.lengths[: index + 1].sum())
    tokens = slice(end - int(group.lengths[index]), end)
    versions = group.versions[tokens]
    breakdown = {f"reward/{name}": _number(group.breakdown.get(name), index) for name in parts}
    return {
        "step": step,
        "request_id": group.request_id,  # siblings have it in common
        "prompt_id": group.prompt.prompt_id,
        "prompt": _utf8(group.prompt.text),
        "completion": _utf8(group.texts[index]) if group.texts else "",
        "reward": _number(group.rewards, index),
        **breakdown,
        "advantage_mean": _mean(None if group.advantages is None else group.advantages[tokens]),
        "length": int(group.lengths[index]),
        "finish_reason": group.finish_reasons[index],
        "version_oldest": int(versions.min()) if len(versions) else None,
        "version_newest": int(versions.max()) if len(versions) else None,
        "worker_id": group.worker_id,
        "invalid": "; ".join(f"{f.source} {f.kind}: {f.message}" for f in group.invalid if f.completion == index),
    }


def _number(values_G: np.ndarray | None, index: int) -> float | None:
    return None if values_G is None or not math.isfinite(values_G[index]) else float(values_G[index])


def _mean(values: np.ndarray | None) -> float | None:
    return None if values is None or not len(values) else float(values.mean())


def _utf8(text: str) -> str:
    """Lone surrogates, which a JSON prompt can hold and Parquet cannot, become question marks."""
    return text.encode("utf-8", "replace").decode("utf-8")
