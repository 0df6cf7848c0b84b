"""Token rewards, the overlong penalty and running scales, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from rlhf_cluster.functional.rewards import RunningMoments, per_token, soft_overlong_penalty

LENGTHS = np.array([2, 0, 1])


def test_the_reward_stands_at_the_last_token_and_the_kl_at_every_one():
    kl_N = np.array([0.1, -0.2, 0.4], dtype=np.float32)
    result = per_token(np.array([1.0, 7.0, 2.0]), LENGTHS, kl_N=kl_N, kl_coef=0.5)
    np.testing.assert_allclose(result, [-0.05, 0.1 + 1.0, -0.2 + 2.0], rtol=1e-6)
    assert kl_N[0] == np.float32(0.1), "the column that came in is as it was"


def test_without_a_kl_the_other_tokens_have_no_reward():
    assert per_token(np.array([1.0, 7.0, 2.0]), LENGTHS).tolist() == [0.0, 1.0, 2.0]


def test_the_overlong_penalty_of_the_paper_falls_over_its_last_4096_tokens():
    lengths = np.array([1, 16384, 16385, 18432, 20480, 30000])
    penalty = soft_overlong_penalty(lengths, max_length=20480, cache=4096)
    np.testing.assert_allclose(penalty, [0, 0, -1 / 4096, -0.5, -1, -1])


@pytest.mark.parametrize("cache", [0, -1, 101])
def test_a_cache_outside_the_length_is_refused(cache):
    with pytest.raises(ValueError, match=f"cache = {cache}"):
        soft_overlong_penalty(LENGTHS, max_length=100, cache=cache)


def test_rewards_are_scaled_by_the_deviation_so_far_and_not_centred():
    moments = RunningMoments().with_values(np.array([1.0, 2.0])).with_values(np.array([3.0, 6.0]))
    assert moments.std(ddof=0) == pytest.approx(np.sqrt(14 / 4))
    np.testing.assert_allclose(moments.scaled(np.array([3.0])), 3.0 / np.sqrt(14 / 3))
    np.testing.assert_allclose(moments.scaled(np.array([30.0, -30.0]), clip=2.0), [2.0, -2.0])


def test_nothing_is_scaled_before_a_deviation_is_known():
    one = RunningMoments().with_values(np.array([5.0]))
    assert one.with_values(np.zeros(0)) == one
    assert one.std() == RunningMoments().std() == 1.0
