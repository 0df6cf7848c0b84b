"""Whether labels can be trusted, against cases that one can count."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from rlhf_cluster.service.label_statistics import statistics_of


class Said(NamedTuple):
    number: int
    labeler: str
    choice: str
    shown_left: str = "a"
    taken_s: float = 1.0
    undone_s: float | None = None


def test_kappa_is_that_of_the_textbook_case():
    # Cohen's own shape of case: 20 and 15 of 50 alike, 5 and 10 apart, so 0.7 observed, 0.5 by chance.
    told = [("a", "a")] * 20 + [("a", "b")] * 5 + [("b", "a")] * 10 + [("b", "b")] * 15
    rows = [
        Said(n, who, choice) for n, both in enumerate(told) for who, choice in zip(("ada", "bob"), both, strict=True)
    ]
    [both] = statistics_of(rows).pairs_of_labelers
    assert (both.num_pairs, both.agreement, both.kappa) == (50, pytest.approx(0.7), pytest.approx(0.4))


def test_somebody_who_always_takes_the_left_is_seen():
    rows = [Said(number, "ada", "ab"[number % 2], shown_left="ab"[number % 2]) for number in range(20)]
    told = statistics_of(rows)
    assert told.left_share == 1.0
    assert told.left_interval[0] > 0.8


def test_a_choice_of_the_text_and_not_of_its_place_leaves_a_half_within_the_interval():
    rows = [Said(number, "ada", "a", shown_left="ab"[number % 2]) for number in range(20)]
    told = statistics_of(rows)
    assert told.left_share == 0.5
    assert told.left_interval == (pytest.approx(0.2993, abs=1e-4), pytest.approx(0.7007, abs=1e-4))


def test_only_what_two_have_both_judged_is_compared_and_whoever_said_most_is_first():
    rows = [Said(n, "ada", "a") for n in range(4)] + [Said(n, "bob", "a") for n in range(3)] + [Said(0, "cyd", "b")]
    told = statistics_of([*rows, Said(3, "cyd", "skip"), Said(2, "cyd", "a", undone_s=9.0)])
    assert [each.labeler for each in told.labelers] == ["ada", "bob", "cyd"]
    assert [(each.labelers, each.num_pairs) for each in told.pairs_of_labelers] == [
        (("ada", "bob"), 3),
        (("ada", "cyd"), 1),
        (("bob", "cyd"), 1),
    ]
    assert told.agreement == pytest.approx(3 / 5)
    assert [each.kappa for each in told.pairs_of_labelers] == [None, 0.0, 0.0]  # two who always say the same word


def test_seconds_are_of_labels_and_the_median_is_not_moved_by_a_long_lunch():
    rows = [Said(n, "ada", "a", taken_s=s) for n, s in enumerate((1.0, 3.0, 4000.0))]
    told = statistics_of([*rows, Said(3, "ada", "skip", taken_s=0.1)])
    assert told.median_s == told.labelers[0].median_s == 3.0
