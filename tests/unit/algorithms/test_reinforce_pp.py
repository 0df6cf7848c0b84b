"""REINFORCE++: rewards to go less the KL, whitened over all tokens of the batch."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from rlhf_cluster.algorithms import ReinforcePP
from rlhf_cluster.testing import make_group


def _group(rewards, lengths, *, kl=None):
    group = replace(make_group(lengths), rewards=np.array(rewards, dtype=np.float32), advantages=None)
    return group if kl is None else replace(group, reference_logprobs=group.logprobs - np.array(kl, dtype=np.float32))


def _whitened(values):
    values = np.array(values)
    return (values - values.mean()) / values.std()  # the population's deviation, each token alike


def test_each_token_is_credited_with_its_reward_less_the_kl_from_it_on():
    group = _group([1.0, 2.0], [2, 1], kl=[0.5, 1.0, 2.0])
    (credited,) = ReinforcePP(kl_coef=0.1).credit([group])
    # 1 - 0.1 (0.5 + 1), then 1 - 0.1, and 2 - 0.2.
    np.testing.assert_allclose(credited.advantages, _whitened([0.85, 0.9, 1.8]), rtol=1e-4)


def test_the_batch_is_whitened_as_a_whole():
    groups = [_group([1.0], [1]), _group([4.0], [3])]
    first, second = ReinforcePP().credit(groups)
    expected = _whitened([1.0, 4.0, 4.0, 4.0])
    np.testing.assert_allclose(first.advantages, expected[:1], rtol=1e-6)
    np.testing.assert_allclose(second.advantages, expected[1:], rtol=1e-6)


def test_with_a_group_baseline_a_prompt_that_pays_more_gives_no_more_credit():
    groups = [_group([0.0, 1.0], [1, 1]), _group([10.0, 11.0], [1, 1])]
    first, second = ReinforcePP(baseline="group").credit(groups)
    np.testing.assert_allclose(first.advantages, _whitened([-0.5, 0.5]), rtol=1e-6)
    np.testing.assert_array_equal(second.advantages, first.advantages)


def test_tokens_that_are_not_trained_on_are_neither_credited_nor_counted():
    mask = np.array([True, False, True])
    (credited,) = ReinforcePP().credit([replace(_group([1.0, 3.0], [2, 1]), loss_mask=mask)])
    np.testing.assert_allclose(credited.advantages, [-1.0, 0.0, 1.0], rtol=1e-6)


@pytest.mark.parametrize(("baseline", "least", "reason"), [("none", 1, None), ("group", 2, "too_few_valid")])
def test_siblings_are_asked_for_only_where_they_are_the_baseline(baseline, least, reason):
    algorithm = ReinforcePP(baseline=baseline)
    assert algorithm.min_completions == least
    assert algorithm.drop_reason(_group([1.0], [2])) == reason
    assert algorithm.drop_reason(_group([1.0, 1.0], [2, 1])) is None
