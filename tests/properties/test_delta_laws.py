"""Laws of deltas between weight versions: exact for every pattern of bits, refused when damaged."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from rlhf_cluster.errors import FingerprintMismatch
from rlhf_cluster.weights import delta

ITEM_BYTES = st.sampled_from([1, 2, 4, 8])
NAN_PATTERNS = np.array([0x7FC0, 0xFFC0, 0x7F80, 0x7FFF, 0x8000, 0x0000], np.uint16)


@st.composite
def versions(draw, max_share: float = 0.1):
    """Two versions of equal length: random items, some replaced by NaNs, infinities and zeros of either sign."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    item_bytes = draw(ITEM_BYTES)
    num_items = draw(st.integers(0, 5000))
    share = draw(st.sampled_from([0.0, max_share / 10, max_share]))
    before = rng.integers(256, size=num_items * item_bytes, dtype=np.uint8)
    after = before.copy()
    items = after.view(f"<u{item_bytes}")
    changed = np.flatnonzero(rng.random(num_items) < share)
    items[changed] = rng.choice(NAN_PATTERNS, size=len(changed)).astype(items.dtype)
    return before, after, item_bytes


@given(versions())
def test_applied_to_the_version_before_it_gives_the_next_one(pair):
    before, after, item_bytes = pair
    changes = delta.encode(before, after, item_bytes=item_bytes)
    assume(changes is not None)
    kept = before.copy()
    np.testing.assert_array_equal(delta.apply(before, changes), after)
    np.testing.assert_array_equal(before, kept)
    delta.apply_in_place(before, changes)
    np.testing.assert_array_equal(before, after)


@given(st.integers(0, 3), st.integers(1, 3000), st.integers(0, 2**32))
def test_tensors_apart_from_each_other_change_and_what_lies_between_stays(num_untouched, num_items, seed):
    rng = np.random.default_rng(seed)
    before = rng.integers(256, size=4 * (3 * num_items + num_untouched), dtype=np.uint8)
    after = before.copy()
    ranges = [(0, 2 * num_items), (4 * (2 * num_items + num_untouched), 2 * num_items)]
    for first, num_bytes in ranges:
        after[first + rng.integers(num_bytes)] ^= 1
    changes = delta.encode(before, after, item_bytes=2, ranges=ranges)
    assume(changes is not None)
    np.testing.assert_array_equal(delta.apply(before, changes), after)


@given(st.integers(400, 5000), ITEM_BYTES)
def test_equal_versions_cost_next_to_nothing_and_unlike_ones_are_refused(num_items, item_bytes):
    before = np.zeros(num_items * item_bytes, np.uint8)
    changes = delta.encode(before, before, item_bytes=item_bytes)
    assert changes.nbytes <= 64 + 2 * (num_items // 256 + 1)
    np.testing.assert_array_equal(delta.apply(before, changes), before)
    assert delta.encode(before, before + 1, item_bytes=item_bytes) is None


@given(versions(), st.integers(0, 2**32), st.integers(1, 255))
def test_a_delta_with_one_wrong_byte_is_refused_and_leaves_the_version_as_it_was(pair, where, flip):
    before, after, item_bytes = pair
    changes = delta.encode(before, after, item_bytes=item_bytes)
    assume(changes is not None)
    changes[where % changes.nbytes] ^= flip
    kept = before.copy()
    with pytest.raises(FingerprintMismatch):
        delta.apply_in_place(before, changes)
    np.testing.assert_array_equal(before, kept)


@given(versions(), st.integers(0, 2**32))
def test_a_delta_that_was_cut_short_is_refused(pair, where):
    before, after, item_bytes = pair
    changes = delta.encode(before, after, item_bytes=item_bytes)
    assume(changes is not None)
    with pytest.raises(FingerprintMismatch):
        delta.apply(before, changes[: where % changes.nbytes])


@given(st.integers(500, 2000))
def test_a_delta_for_another_length_is_refused(num_items):
    before = np.zeros(2 * num_items, np.uint8)
    with pytest.raises(FingerprintMismatch, match="was offered to a version of"):
        delta.apply(before[:-2], delta.encode(before, before, item_bytes=2))
