"""ORPO as a value, by hand."""

from __future__ import annotations

import math

import pytest

from rlhf_cluster.algorithms import ORPO


def test_it_imitates_the_chosen_and_raises_its_odds(group, columns):
    # Mean log-probabilities log 3/4 over two tokens and log 1/4 over one: odds 3 and 1/3, their ratio 9.
    pair = ORPO().credit([group([1.0, 0.0], lengths=[2, 1])])
    logprobs = [math.log(3 / 4) - 0.1, math.log(3 / 4) + 0.1, math.log(1 / 4)]
    loss = ORPO(odds_coef=0.5).loss(columns(pair, logprobs))
    assert loss.loss_G.item() == pytest.approx(-math.log(3 / 4) - 0.5 * math.log(9 / 10))
    assert loss.metrics["nll"].item() == pytest.approx(-math.log(3 / 4))
    assert loss.metrics["log_odds_ratio"].item() == pytest.approx(math.log(9))
    assert loss.metrics["margin"].item() == pytest.approx(0.5 * math.log(3))


def test_it_needs_no_reference():
    assert ORPO().needs == {"reward"}
