"""The reward model as a value: all pairs of each group, ties, margins and centring, by hand."""

from __future__ import annotations

import math

import pytest
import torch

from rlhf_cluster.algorithms import RewardModel, ScoreColumns

LOG2, LOG3 = math.log(2), math.log(3)


def scored(scores, rewards, group=None):
    group = group or [0] * len(scores)
    return ScoreColumns(
        scores_S=torch.as_tensor(scores, dtype=torch.float64),
        rewards_S=torch.tensor(rewards),
        group_S=torch.tensor(group),
        num_groups=max(group) + 1,
    )


@pytest.mark.parametrize(
    ("fields", "rewards", "expected"),
    [
        ({}, [1.0, 0.0], -math.log(3 / 4)),
        ({}, [0.0, 1.0], -math.log(1 / 4)),
        ({}, [1.0, 1.0], -(math.log(3 / 4) + math.log(1 / 4)) / 2),
        ({"keep_ties": False}, [1.0, 1.0], 0.0),
        # The margin is log(3) / 2 times a difference of 2.
        ({"margin_coef": LOG3 / 2}, [3.0, 1.0], LOG2),
        ({"label_smoothing": 0.1}, [1.0, 0.0], -0.9 * math.log(3 / 4) - 0.1 * math.log(1 / 4)),
        ({"centering_coef": 0.5}, [1.0, 0.0], -math.log(3 / 4) + 0.5 * (2 + LOG3) ** 2),
    ],
)
def test_the_loss_of_a_pair(fields, rewards, expected):
    algorithm = RewardModel(**{"centering_coef": 0.0, **fields})
    assert algorithm.loss(scored([1.0 + LOG3, 1.0], rewards)).loss_G.tolist() == pytest.approx([expected])


def test_a_group_has_the_mean_over_all_of_its_pairs_and_groups_weigh_alike(group):
    # Rewards 2 > 1 > 0 with scores 0, log 3, log 3: the pairs have logits -log 3, -log 3 and 0.
    columns = scored([0.0, LOG3, LOG3, LOG3, 0.0], [2.0, 1.0, 0.0, 1.0, 0.0], [0, 0, 0, 1, 1])
    loss = RewardModel(centering_coef=0.0).loss(columns)
    assert loss.loss_G.tolist() == pytest.approx([(2 * -math.log(1 / 4) + LOG2) / 3, -math.log(3 / 4)])
    assert loss.metrics["accuracy"].tolist() == pytest.approx([0.5 / 3, 1.0])
    assert loss.metrics["margin"].tolist() == pytest.approx([-2 * LOG3 / 3, LOG3])
    assert loss.metrics["chosen_reward"].tolist() == pytest.approx([LOG3 / 3, LOG3])
    assert loss.metrics["rejected_reward"].tolist() == pytest.approx([LOG3, 0.0])
    assert RewardModel().normaliser([group([2.0, 1.0, 0.0]), group([1.0, 0.0])]) == 2.0


def test_gradients_agree_with_finite_differences_and_metrics_have_none():
    algorithm = RewardModel(margin_coef=0.3, centering_coef=0.1, label_smoothing=0.05)
    scores = torch.linspace(-1, 2, 6, dtype=torch.float64).requires_grad_()
    rewards, groups = [1.0, 1.0, 0.0, 3.0, 0.0, 0.0], [0, 0, 0, 1, 1, 1]
    assert torch.autograd.gradcheck(lambda scores_S: algorithm.loss(scored(scores_S, rewards, groups)).loss_G, scores)
    metrics = algorithm.loss(scored(scores, rewards, groups)).metrics
    assert not any(values.requires_grad for values in metrics.values())


def test_scores_learned_from_comparisons_are_the_strengths_that_made_them():
    # Three answers that win against each other as Bradley-Terry says with strengths log 1, log 2 and log 4: of 15
    # comparisons of the last with the first it wins 12, of the neighbours' each 10.
    won = [(1, 0, 10), (0, 1, 5), (2, 1, 10), (1, 2, 5), (2, 0, 12), (0, 2, 3)]
    winners = [winner for winner, _, times in won for _ in range(times)]
    losers = [loser for _, loser, times in won for _ in range(times)]
    strengths = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([strengths], max_iter=50, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        scores = strengths[torch.tensor([winners, losers]).T.flatten()]
        columns = scored(scores, [1.0, 0.0] * len(winners), [pair for pair in range(len(winners)) for _ in range(2)])
        loss = RewardModel(centering_coef=1e-9).loss(columns).loss_G.mean()
        loss.backward()
        return loss

    optimizer.step(closure)
    found = (strengths - strengths[0]).tolist()
    assert found == pytest.approx([0.0, LOG2, 2 * LOG2], abs=1e-3)


@pytest.mark.parametrize(
    ("fields", "rewards", "reason"),
    [
        ({}, [1.0], "too_few_valid"),
        ({}, [1.0, 1.0], None),
        ({"keep_ties": False}, [1.0, 1.0], "zero_variance"),
        ({"keep_ties": False}, [1.0, 1.0, 0.0], None),
    ],
)
def test_groups_that_say_nothing_are_dropped_with_the_reason(group, fields, rewards, reason):
    assert RewardModel(**fields).drop_reason(group(rewards)) == reason


def test_credit_leaves_every_completion_in_its_group(group):
    (credited,) = RewardModel().credit([group([2.0, 1.0, 0.0], lengths=[1, 2, 1])])
    assert credited.rewards.tolist() == [2.0, 1.0, 0.0]
    assert credited.advantages.tolist() == [2.0, 1.0, 1.0, 0.0]


def test_it_trains_a_sequence_classifier():
    assert RewardModel().model == "reward_model"
