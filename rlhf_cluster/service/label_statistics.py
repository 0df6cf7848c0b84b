"""How far the labels of a set can be trusted: who said how much, how often two say the same, and whether people look at
what an answer says or at where it stands."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import combinations
from statistics import median

import numpy as np
from sqlalchemy import Row

from rlhf_cluster.functional.agreement import cohens_kappa, pairwise_agreement, position_bias
from rlhf_cluster.wire.labels import Agreement, LabelerStatistics, LabelStatistics

CHOICES = ("a", "b", "tie")


def statistics_of(rows: Sequence[Row]) -> LabelStatistics:
    """Of all labels of a set, undone ones too: rows with `number`, `labeler`, `choice`, `shown_left`, `taken_s` and
    `undone_s`."""
    counting = [row for row in rows if row.undone_s is None]
    labels = [row for row in counting if row.choice != "skip"]
    num_ties = sum(row.choice == "tie" for row in labels)
    num_left = sum(row.choice == row.shown_left for row in labels)
    left = position_bias(num_left, len(labels) - num_ties - num_left)
    return LabelStatistics(
        num_labels=len(labels),
        num_skips=len(counting) - len(labels),
        num_undone=len(rows) - len(counting),
        tie_rate=_share(num_ties, len(labels)),
        skip_rate=_share(len(counting) - len(labels), len(counting)),
        left_share=left.value,
        left_interval=(left.low, left.high),
        median_s=_median(labels),
        agreement=_agreement(labels),
        labelers=_labelers(counting),
        pairs_of_labelers=_pairs_of_labelers(labels),
    )


def _labelers(rows: Iterable[Row]) -> list[LabelerStatistics]:
    of_labeler: defaultdict[str, list[Row]] = defaultdict(list)
    for row in rows:
        of_labeler[row.labeler].append(row)
    found = [_labeler(labeler, own) for labeler, own in of_labeler.items()]
    return sorted(found, key=lambda each: (-each.num_labels, each.labeler))


def _labeler(labeler: str, rows: Sequence[Row]) -> LabelerStatistics:
    labels = [row for row in rows if row.choice != "skip"]
    return LabelerStatistics(
        labeler=labeler,
        num_labels=len(labels),
        num_ties=sum(row.choice == "tie" for row in labels),
        num_skips=len(rows) - len(labels),
        num_left=sum(row.choice == row.shown_left for row in labels),
        median_s=_median(labels),
    )


def _agreement(labels: Sequence[Row]) -> float:
    """NaN where no pair has two labels."""
    places = {number: place for place, number in enumerate({row.number for row in labels})}
    people = {labeler: place for place, labeler in enumerate({row.labeler for row in labels})}
    said_PR = np.full((len(places), len(people)), -1)
    for row in labels:
        said_PR[places[row.number], people[row.labeler]] = CHOICES.index(row.choice)
    return pairwise_agreement(said_PR)


def _pairs_of_labelers(labels: Iterable[Row]) -> list[Agreement]:
    said: defaultdict[str, dict[int, str]] = defaultdict(dict)
    for row in labels:
        said[row.labeler][row.number] = row.choice
    found = [
        _of_two(one, other, [(said[one][number], said[other][number]) for number in shared])
        for one, other in combinations(sorted(said), 2)
        if (shared := said[one].keys() & said[other].keys())
    ]
    return sorted(found, key=lambda each: (-each.num_pairs, each.labelers))


def _of_two(one: str, other: str, choices: Sequence[tuple[str, str]]) -> Agreement:
    first, second = zip(*choices, strict=True)
    return Agreement(
        labelers=(one, other),
        num_pairs=len(choices),
        agreement=sum(a == b for a, b in choices) / len(choices),
        kappa=cohens_kappa(first, second),
    )


def _share(num: int, of: int) -> float | None:
    return num / of if of else None


def _median(labels: Sequence[Row]) -> float | None:
    return median(row.taken_s for row in labels) if labels else None
