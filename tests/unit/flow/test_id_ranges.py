from hypothesis import given
from hypothesis import strategies as st

from rlhf_cluster.flow.id_ranges import IdRanges

id_sets = st.sets(st.integers(0, 40))


@given(ids=id_sets, more=id_sets)
def test_ranges_hold_exactly_the_ids_they_were_given(ids, more):
    both = IdRanges.of(ids) | IdRanges.of(more)
    assert [each for each in range(-1, 42) if each in both] == sorted(ids | more)
    assert len(both) == len(ids | more)


@given(ids=id_sets)
def test_ranges_and_holes_together_are_everything(ids):
    ranges = IdRanges.of(ids)
    holes = IdRanges(ranges.holes(end=41))
    assert not any(each in ranges for each in range(41) if each in holes)
    assert (ranges | holes).ranges == ((0, 40),)


def test_consecutive_ids_need_one_range():
    assert IdRanges.of(range(1_000)).ranges == ((0, 999),)
