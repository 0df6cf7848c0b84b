"""What the labels of a pair say together, in the columns of preference data: a source of jobs that learn from pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import Row

from rlhf_cluster.data.preferences import Preference, majority


def columns_of(pair: Row, labels: Sequence[Row]) -> dict[str, Any]:
    """`pair` with at least one label, none of which is a skip: what most said, and a tie where nothing is ahead.

    Beside the columns of every preference file: `num_labels`, `agreement` (share of those that said the same as the
    result) and `labelers`.
    """
    said = [
        Preference(
            pair_id=pair.pair_id,
            prompt=pair.prompt,
            a=pair.completion_a,
            b=pair.completion_b,
            label=row.choice,
            labeler=row.labeler,
            kind="person",
            time_s=row.time_s,
            provenance=pair.provenance,
        )
        for row in labels
    ]
    [result] = majority(said)
    agreement = sum(each.label == result.label for each in said) / len(said)
    figures = {"num_labels": len(said), "agreement": agreement, "labelers": [row.labeler for row in labels]}
    return replace(result, item=figures).columns()
