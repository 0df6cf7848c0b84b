"""What makes a pair, what `credit` says of it, and laws that every loss of pairs obeys."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from rlhf_cluster.algorithms import DPO, ORPO, SimPO

PAIRS = [
    DPO(),
    DPO(loss_type="ipo", label_smoothing=0.1, length_normalised=True),
    DPO(loss_type="hinge", sft_coef=0.5),
    DPO(reference_free=True),
    ORPO(odds_coef=0.7),
    SimPO(label_smoothing=0.1),
]
every_algorithm = pytest.mark.parametrize("algorithm", PAIRS, ids=lambda algorithm: repr(algorithm)[:60])
LENGTHS = ([1, 3], [2, 2], [4, 1])


@pytest.fixture
def batch(group):
    """Three pairs, the first completion preferred, then twice the second."""
    preferences = ([1.0, 0.0], [0.0, 1.0], [-2.0, 5.0])
    return [group(rewards, lengths=lengths) for rewards, lengths in zip(preferences, LENGTHS, strict=True)]


@pytest.fixture
def tokens():
    """Log-probabilities under policy and reference, [13] each."""
    generator = torch.Generator().manual_seed(0)
    return (-0.1 - 2 * torch.rand(2, 13, dtype=torch.float64, generator=generator)).unbind()


@pytest.mark.parametrize(
    ("rewards", "reason"),
    [([1.0], "too_few_valid"), ([], "too_few_valid"), ([0.5, 0.5], "zero_variance"), ([0.0, 1.0], None)],
)
def test_what_prefers_nothing_is_dropped_with_the_reason(group, rewards, reason):
    assert DPO().drop_reason(group(rewards)) == reason


def test_ties_are_kept_where_they_are_learned_from(group):
    assert DPO(keep_ties=True).drop_reason(group([0.5, 0.5])) is None


def test_a_pair_with_nothing_to_train_on_in_one_completion_is_dropped(group):
    assert DPO().drop_reason(group([1.0, 0.0], masked=[2, 3])) == "no_tokens"
    assert DPO().drop_reason(group([1.0, 0.0], masked=[1, 3])) is None
    # Of three completions the middle one is never trained on, so its tokens are of no matter.
    assert DPO().drop_reason(group([1.0, 0.5, 0.0], masked=[2, 3])) is None


def test_credit_signs_every_token_of_the_preferred_completion_and_of_the_other(group):
    (credited,) = DPO().credit([group([0.0, 3.0], lengths=[1, 2])])
    assert credited.advantages.dtype == np.float32
    assert credited.advantages.tolist() == [-1.0, 1.0, 1.0]
    (tie,) = DPO().credit([group([3.0, 3.0], lengths=[1, 2])])
    assert tie.advantages.tolist() == [0.0, 0.0, 0.0]


def test_of_many_completions_the_best_and_the_worst_are_kept_in_their_order(group):
    (pair,) = DPO().credit([group([1.0, 4.0, -2.0, 4.0], lengths=[1, 2, 3, 1])])
    assert pair.rewards.tolist() == [-2.0, 4.0]
    assert pair.lengths.tolist() == [3, 1]
    assert pair.advantages.tolist() == [-1.0, -1.0, -1.0, 1.0]


def test_of_many_equal_completions_two_different_ones_are_kept(group):
    (pair,) = DPO(keep_ties=True).credit([group([1.0, 1.0, 1.0], lengths=[1, 2, 3])])
    assert pair.lengths.tolist() == [1, 3]


def test_a_missing_reward_is_our_bug_and_is_not_taken_for_a_preference(group):
    with pytest.raises(AssertionError, match="request 0"):
        DPO().credit([group([1.0, math.nan])])


@every_algorithm
def test_the_gradient_of_every_loss_agrees_with_finite_differences(algorithm, batch, columns, tokens):
    logprobs, reference = tokens
    credited = algorithm.credit(batch)
    weights = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)

    def loss(logprobs_N):
        return weights @ algorithm.loss(columns(credited, logprobs_N, reference=reference)).loss_G

    assert torch.autograd.gradcheck(loss, logprobs.requires_grad_())


@every_algorithm
def test_a_batch_has_the_loss_of_its_microbatches(algorithm, batch, columns, tokens):
    logprobs, reference = tokens
    credited = algorithm.credit(batch)
    whole = algorithm.loss(columns(credited, logprobs, reference=reference))
    head = algorithm.loss(columns(credited[:2], logprobs[:8], reference=reference[:8]))
    tail = algorithm.loss(columns(credited[2:], logprobs[8:], reference=reference[8:]))
    torch.testing.assert_close(whole.loss_G, torch.cat([head.loss_G, tail.loss_G]))
    for name, values in whole.metrics.items():
        torch.testing.assert_close(values, torch.cat([head.metrics[name], tail.metrics[name]]))
        assert values.shape == (3,)
        assert not values.requires_grad


@every_algorithm
def test_it_does_not_matter_which_completion_was_recorded_first(algorithm, group, columns):
    one = algorithm.credit([group([1.0, 0.0], lengths=[1, 2])])
    other = algorithm.credit([group([0.0, 1.0], lengths=[2, 1])])
    first = algorithm.loss(columns(one, [-1.0, -2.0, -0.5], reference=[-1.5, -1.0, -1.0]))
    second = algorithm.loss(columns(other, [-2.0, -0.5, -1.0], reference=[-1.0, -1.0, -1.5]))
    torch.testing.assert_close(first.loss_G, second.loss_G)
    assert first.metrics.keys() == second.metrics.keys()
    for name, values in first.metrics.items():
        torch.testing.assert_close(values, second.metrics[name])


@every_algorithm
def test_learning_raises_the_margin(algorithm, batch, columns, tokens):
    logprobs, reference = tokens
    credited = algorithm.credit(batch)
    before = columns(credited, logprobs, reference=reference)
    loss = algorithm.loss(before)
    loss.loss_G.sum().backward()
    after = algorithm.loss(columns(credited, logprobs.detach() - 1e-3 * before.logprobs_N.grad, reference=reference))
    assert after.loss_G.sum() < loss.loss_G.sum()
    assert after.metrics["margin"].sum() > loss.metrics["margin"].sum()


@every_algorithm
def test_pairs_weigh_alike(algorithm, batch):
    assert algorithm.normaliser(batch) == 3.0
    assert algorithm.normaliser([]) == 1.0


def test_columns_that_were_packed_without_groups_or_reference_are_our_bug(group, columns):
    (pair,) = DPO().credit([group([1.0, 0.0])])
    with pytest.raises(AssertionError, match="reference_logprobs_N"):
        DPO().loss(columns([pair], [-1.0] * 4))
