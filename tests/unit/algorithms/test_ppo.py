"""PPO as a value: token rewards, generalised advantages, what is whitened, the adaptive KL, and the loss of both."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from rlhf_cluster.algorithms import PPO
from rlhf_cluster.testing import make_group

PLAIN = {"whiten_advantages": False, "lam": 0.5}


@pytest.fixture
def scored():
    """Completions of two tokens and of one. k1 of their tokens is 0.5, -1 and 2 nats."""
    group = make_group([2, 1])
    logprobs = np.array([-1.0, -2.0, -1.0], dtype=np.float32)
    return replace(
        group,
        rewards=np.array([1.0, -3.0], dtype=np.float32),
        logprobs=logprobs,
        reference_logprobs=logprobs - np.array([0.5, -1.0, 2.0], dtype=np.float32),
        values=np.array([0.2, 0.4, -1.0], dtype=np.float32),
        advantages=None,
    )


def test_advantages_and_returns_match_the_recursion_written_out(scored):
    (credited,) = PPO(kl_coef=0.1, **PLAIN).credit([scored])
    # Rewards -0.1 k1, plus 1 at the second token and -3 at the third: -0.05, 1.1 and -3.2.
    delta_1 = 1.1 - 0.4
    delta_0 = -0.05 + 0.4 - 0.2
    expected = [delta_0 + 0.5 * delta_1, delta_1, -3.2 + 1.0]
    np.testing.assert_allclose(credited.advantages, expected, rtol=1e-6)
    np.testing.assert_allclose(credited.returns, np.array(expected) + scored.values, rtol=1e-6)


def test_a_kl_in_the_loss_is_not_in_the_rewards(scored):
    in_loss, without = (
        PPO(**fields, **PLAIN).credit([scored])[0]
        for fields in ({"kl_coef": 0.1, "kl_in": "loss", "kl_estimator": "k3"}, {"kl_coef": 0.0})
    )
    np.testing.assert_array_equal(in_loss.advantages, without.advantages)


def test_rewards_are_clipped_before_the_kl(scored):
    (credited,) = PPO(kl_coef=0.1, reward_clip=2.0, **PLAIN).credit([scored])
    assert credited.advantages[2] == pytest.approx(-2.0 - 0.2 + 1.0)


def test_overlong_completions_are_paid_less(scored):
    (credited,) = PPO(kl_coef=0.0, overlong_length=2, overlong_cache=1, **PLAIN).credit([scored])
    assert credited.advantages[1] == pytest.approx(1.0 - 1.0 - 0.4)
    assert credited.advantages[2] == pytest.approx(-3.0 + 1.0)


def test_advantages_are_whitened_over_the_batch_and_returns_are_not(scored):
    groups = [scored, replace(scored, rewards=scored.rewards + 5)]
    plain = PPO(**PLAIN).credit(groups)
    whitened = PPO(lam=0.5).credit(groups)
    together = np.concatenate([group.advantages for group in whitened])
    assert together.mean() == pytest.approx(0.0, abs=1e-6)
    assert together.std(ddof=1) == pytest.approx(1.0, rel=1e-5)
    for one, other in zip(plain, whitened, strict=True):
        np.testing.assert_array_equal(one.returns, other.returns)


def test_whitened_rewards_have_deviation_one_and_keep_their_mean(scored):
    # At lambda 1 and values of 0, the return of the last token of a completion is that token's reward.
    flat = replace(scored, values=np.zeros(3, np.float32))
    (credited,) = PPO(kl_coef=0.1, whiten_rewards=True, whiten_advantages=False, lam=1.0).credit([flat])
    rewards = np.array([-0.05, 1.1, -3.2])
    expected = (rewards - rewards.mean()) / rewards.std(ddof=1) + rewards.mean()
    np.testing.assert_allclose(credited.returns, [expected[0] + expected[1], expected[1], expected[2]], rtol=1e-5)


def test_tokens_that_are_not_trained_on_are_passed_over(scored):
    mask = np.array([True, False, True, False, True])
    wide = make_group([4, 1])

    def spread(values):
        column = np.full(5, 9.0, dtype=np.float32)
        column[mask] = values
        return column

    masked = replace(
        wide,
        rewards=scored.rewards,
        logprobs=spread(scored.logprobs),
        reference_logprobs=spread(scored.reference_logprobs),
        values=spread(scored.values),
        loss_mask=mask,
    )
    algorithm = PPO(kl_coef=0.1, **PLAIN)
    (expected,), (credited,) = algorithm.credit([scored]), algorithm.credit([masked])
    np.testing.assert_array_equal(credited.trained(credited.advantages), expected.advantages)
    np.testing.assert_array_equal(credited.trained(credited.returns), expected.returns)
    assert (credited.advantages[~mask] == 0).all()


@pytest.mark.parametrize(
    ("target", "expected"),
    # The completions' KL is -0.5 and 2, 0.75 on average; two of them over a horizon of 10 count a fifth.
    [(0.7, 0.1 * (1 + (0.75 / 0.7 - 1) / 5)), (0.1, 0.1 * (1 + 0.2 / 5)), (75.0, 0.1 * (1 - 0.2 / 5))],
)
def test_the_kl_coefficient_follows_its_target(scored, target, expected):
    algorithm = PPO(kl_coef=0.1, kl_target=target, kl_horizon=10)
    adapted = algorithm.adapted([scored])
    assert adapted.kl_coef == pytest.approx(expected, rel=1e-6)
    assert adapted == algorithm.model_copy(update={"kl_coef": adapted.kl_coef})
    assert PPO(kl_coef=0.1).adapted([scored]) == PPO(kl_coef=0.1)


@pytest.mark.parametrize(
    ("fields", "needs"),
    [({}, {"reward", "value", "reference"}), ({"kl_coef": 0.0}, {"reward", "value"})],
)
def test_it_needs_the_critic_always_and_the_reference_for_its_kl(fields, needs):
    assert PPO(**fields).needs == needs


def test_one_completion_teaches_and_one_without_trained_tokens_does_not(scored):
    assert PPO().drop_reason(scored.select(np.array([False, True]))) is None
    assert PPO().drop_reason(replace(scored, loss_mask=np.zeros(3, dtype=bool))) == "no_tokens"


def test_missing_values_are_our_bug(scored):
    with pytest.raises(AssertionError, match="values"):
        PPO().credit([replace(scored, values=None)])


def _columns(scored, columns, **changed):
    (credited,) = PPO(**PLAIN).credit([scored])
    made = columns([credited], [-0.8, -2.3, -1.1], reference=[-1.5, -1.0, -3.0])
    return replace(
        made,
        behaviour_logprobs_N=torch.tensor(scored.logprobs).double(),
        old_logprobs_N=torch.tensor([-1.0, -2.0, -1.2]).double(),
        values_N=torch.tensor([0.5, 0.3, -1.0], dtype=torch.float64, requires_grad=True),
        old_values_N=torch.tensor(scored.values).double(),
        returns_N=torch.tensor(credited.returns).double(),
        **changed,
    )


def test_the_value_loss_is_added_with_its_coefficient_and_only_it_reaches_the_values(scored, columns):
    made = _columns(scored, columns)
    with_value, without = (PPO(value_coef=coef, value_clip=None).loss(made) for coef in (0.5, 0.0))
    half_squares_N = 0.5 * (made.values_N - made.returns_N) ** 2
    torch.testing.assert_close(with_value.loss_N - without.loss_N, 0.5 * half_squares_N)
    torch.testing.assert_close(with_value.metrics["value_loss"], half_squares_N.detach())
    (gradient,) = torch.autograd.grad(with_value.loss_N.sum(), made.values_N)
    torch.testing.assert_close(gradient, 0.5 * (made.values_N - made.returns_N).detach())
    assert "value_clip_fraction" not in with_value.metrics
    assert "value_clip_fraction" in PPO().loss(made).metrics


def test_the_whole_loss_agrees_with_finite_differences_in_logprobs_values_and_entropy(scored, columns):
    algorithm = PPO(kl_coef=0.1, kl_in="loss", kl_estimator="k3", entropy_coef=0.3, dual_clip=3.0)
    made = _columns(scored, columns)

    def loss(logprobs_N, values_N, entropy_N):
        changed = replace(made, logprobs_N=logprobs_N, values_N=values_N, entropy_N=entropy_N)
        return algorithm.loss(changed).loss_N

    entropy_N = torch.tensor([1.0, 0.5, 2.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(loss, (made.logprobs_N, made.values_N, entropy_N))


def test_a_target_for_a_coefficient_of_zero_is_refused():
    with pytest.raises(ValidationError, match="from 0 it never moves"):
        PPO(kl_coef=0.0, kl_target=6.0)
