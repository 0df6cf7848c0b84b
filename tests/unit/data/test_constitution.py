"""Constitutions: those that ship, what a file may say, and how principles are drawn."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf_cluster.data.constitution import BUILT_IN, load_constitution, parse_constitution
from rlhf_cluster.errors import DataError

PRINCIPLE = (
    'id = "{id}"\nversion = 1\ncritique = "what is wrong?"\nrevision = "mend it"\ncomparison = "the better one"\n'
)


def text_of(*ids: str, name: str = "mine") -> str:
    principles = "".join(f"[[principles]]\n{PRINCIPLE.format(id=each)}" for each in ids)
    return f'name = "{name}"\nversion = 3\n{principles}'


@pytest.mark.parametrize("name", BUILT_IN)
def test_those_that_ship_load_by_name_and_have_different_digests(name):
    constitution = load_constitution(name)
    assert constitution.name == name
    assert len({principle.id for principle in constitution.principles}) >= 2
    assert len({load_constitution(each).digest for each in BUILT_IN}) == len(BUILT_IN)


def test_a_file_of_ones_own_is_named_by_its_path(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(text_of("kind"))
    assert load_constitution(str(path)).principles[0].id == "kind"


def test_the_digest_sees_words_and_versions_and_not_layout_or_description():
    plain = parse_constitution(text_of("kind"), source="test")
    laid_out = parse_constitution("# a comment\n" + text_of("kind") + "\n\n", source="test")
    described = parse_constitution('description = "for tests"\n' + text_of("kind"), source="test")
    reworded = parse_constitution(text_of("kind").replace("mend it", "repair it"), source="test")
    raised = parse_constitution(text_of("kind").replace("version = 3", "version = 4"), source="test")
    assert plain.digest == laid_out.digest == described.digest
    assert len({plain.digest, reworded.digest, raised.digest}) == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name = ", "is no TOML"),
        ('name = "mine"\nversion = 1\nprinciples = []', "principles: Tuple should have at least 1 item"),
        (text_of("kind").replace("critique", "critic"), r"principles\.0\.critique: Field required"),
        (text_of("kind") + "weight = 0\n", r"principles\.0\.weight: .*greater than 0"),
        (text_of("kind", "kind"), "two principles are called 'kind'"),
        (text_of("Kind!"), r"principles\.0\.id"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_with_its_place(text, message):
    with pytest.raises(DataError, match=message) as caught:
        parse_constitution(text, source="mine.toml")
    assert "mine.toml" in str(caught.value)


def test_an_unknown_name_is_told_what_there_is():
    with pytest.raises(DataError, match=r"did you mean 'general'.*word-world"):
        load_constitution("generall")


@given(seed=st.integers(0, 2**32), num_principles=st.integers(1, 5), num=st.integers(0, 12))
def test_no_principle_comes_again_before_all_others_have_come(seed, num_principles, num):
    constitution = parse_constitution(text_of(*[f"p{number}" for number in range(num_principles)]), source="test")
    drawn = constitution.draw(num, np.random.default_rng(seed))
    counts = Counter(principle.id for principle in drawn)
    assert len(drawn) == num
    assert max(counts.values(), default=0) <= -(-num // num_principles)


def test_heavier_principles_come_first_more_often():
    heavy = text_of("light") + "[[principles]]\n" + PRINCIPLE.format(id="heavy") + "weight = 3.0\n"
    constitution = parse_constitution(heavy, source="test")
    first = [constitution.draw(1, np.random.default_rng(seed))[0].id for seed in range(400)]
    assert 0.68 < first.count("heavy") / 400 < 0.82  # 0.75, six standard errors of 0.02 to either side at most
