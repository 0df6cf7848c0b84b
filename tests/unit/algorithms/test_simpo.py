"""SimPO as a value, by hand."""

from __future__ import annotations

import math

import pytest

from rlhf_cluster.algorithms import SimPO


def test_rewards_are_averages_over_tokens_and_the_margin_is_in_their_units(group, columns):
    # Averages -1 over two tokens and -2 over one; 2 (-1 + 2) - (2 - log 3) = log 3.
    pair = SimPO().credit([group([0.0, 1.0], lengths=[1, 2])])
    loss = SimPO(beta=2.0, gamma=2.0 - math.log(3)).loss(columns(pair, [-2.0, -0.5, -1.5]))
    assert loss.loss_G.item() == pytest.approx(-math.log(3 / 4))
    assert loss.metrics["chosen_reward"].item() == pytest.approx(-2.0)
    assert loss.metrics["rejected_reward"].item() == pytest.approx(-4.0)
    assert loss.metrics["accuracy"].item() == 1.0


def test_it_needs_no_reference():
    assert SimPO().needs == {"reward"}
