"""Who judges which pair, and on which side its answers stand."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf_cluster.flow.labelling import next_pair, on_the_left


@given(st.integers(0, 2**31 - 1), st.integers(1, 200), st.text(max_size=20).filter(lambda text: text.isprintable()))
def test_over_a_whole_set_each_completion_stands_left_equally_often_and_always_as_it_did(seed, num, labeler):
    sides = [on_the_left(seed=seed, number=number, labeler=labeler) for number in range(2 * num)]
    assert sides.count("a") == sides.count("b") == num
    assert sides == [on_the_left(seed=seed, number=number, labeler=labeler) for number in range(2 * num)]


def test_people_and_seeds_differ_in_the_sides_they_see():
    seen = {
        (seed, who): "".join(on_the_left(seed=seed, number=number, labeler=who) for number in range(64))
        for seed in (0, 1)
        for who in ("ada", "bob")
    }
    assert len(set(seen.values())) == 4


def test_the_side_says_nothing_of_the_place_in_the_set():
    lefts = sum(on_the_left(seed=3, number=0, labeler=f"person {number}") == "a" for number in range(2000))
    assert abs(lefts - 1000) < 4 * 500**0.5  # standard deviations of 2000 fair coins


@pytest.mark.parametrize(
    ("num_labels", "taken", "overlap", "expected"),
    [
        ([(0, 0), (1, 0)], {}, 1, 0),
        ([(0, 1), (1, 0)], {}, 2, 1),
        ([(0, 0), (1, 0)], {0: 1}, 1, 1),
        ([(0, 0), (1, 0)], {0: 1}, 2, 1),
        ([(0, 0), (1, 1)], {0: 1}, 2, 0),
        ([(0, 0)], {0: 1}, 1, None),
        ([(0, 1)], {0: 1}, 2, None),
        ([], {}, 3, None),
    ],
)
def test_the_pair_with_the_fewest_labels_and_people_is_next(num_labels, taken, overlap, expected):
    assert next_pair(num_labels, taken, overlap=overlap) == expected


@given(st.integers(1, 12), st.integers(1, 4), st.integers(1, 5), st.randoms(use_true_random=False))
def test_whoever_comes_in_whatever_order_every_slot_is_filled_once(num_pairs, overlap, num_people, rng: random.Random):
    """People take pairs and judge them in any order, and leave when there is none for them."""
    said: dict[int, set[int]] = {number: set() for number in range(num_pairs)}
    has: dict[int, int] = {}
    leaving: set[int] = set()
    while len(leaving) < num_people:
        who = rng.choice([each for each in range(num_people) if each not in leaving])
        if who in has:
            said[has.pop(who)].add(who)
            continue
        taken = {number: list(has.values()).count(number) for number in has.values()}
        is_open = [(number, len(labels)) for number, labels in said.items() if who not in labels]
        if (number := next_pair(is_open, taken, overlap=overlap)) is not None:
            has[who] = number
        else:
            leaving.add(who)
    assert {len(labels) for labels in said.values()} == {min(overlap, num_people)}
