"""DPO and its variants as values, by hand. One pair of 1 and 2 tokens, the first completion preferred."""

from __future__ import annotations

import math

import pytest
from pydantic import ValidationError

from rlhf_cluster.algorithms import DPO

LOG3 = math.log(3)
# Log-ratios: chosen 2 log 3 over one token; rejected -1 + 1 = 0 over two. So h = 2 log 3.
LOGPROBS, REFERENCE = [-1.0, -3.0, -1.0], [-1.0 - 2 * LOG3, -2.0, -2.0]


@pytest.fixture
def pair(group):
    def credited(algorithm, rewards=(1.0, 0.0)):
        return algorithm.credit([group(rewards, lengths=[1, 2])])

    return credited


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"beta": 0.5}, -math.log(3 / 4)),
        ({"beta": 0.5, "label_smoothing": 0.2}, -0.8 * math.log(3 / 4) - 0.2 * math.log(1 / 4)),
        ({"beta": 0.5, "loss_type": "ipo"}, (2 * LOG3 - 1) ** 2),
        ({"beta": 0.1, "loss_type": "hinge"}, 1 - 0.2 * LOG3),
        ({"beta": 0.5, "sft_coef": 0.25}, -math.log(3 / 4) + 0.25 * 1.0),
        # Without a reference h = -1 - (-4) = 3.
        ({"beta": LOG3 / 3, "reference_free": True}, -math.log(3 / 4)),
        # Averaged, without a reference, h = -1 - (-2) = 1.
        ({"beta": LOG3, "reference_free": True, "length_normalised": True}, -math.log(3 / 4)),
    ],
)
def test_the_fields_select_the_variants(pair, columns, fields, expected):
    algorithm = DPO(**fields)
    loss = algorithm.loss(columns(pair(algorithm), LOGPROBS, reference=REFERENCE))
    assert loss.loss_G.tolist() == pytest.approx([expected])


def test_it_reports_implicit_rewards_their_margin_and_log_probabilities(pair, columns):
    algorithm = DPO(beta=0.5)
    metrics = algorithm.loss(columns(pair(algorithm, (0.0, 1.0)), LOGPROBS, reference=REFERENCE)).metrics
    assert {name: values.item() for name, values in metrics.items()} == pytest.approx(
        {
            "accuracy": 0.0,
            "margin": -LOG3,
            "chosen_reward": 0.0,
            "rejected_reward": LOG3,
            "chosen_logprob": -4.0,
            "rejected_logprob": -1.0,
        }
    )


def test_a_policy_that_is_its_reference_is_right_half_of_the_time_at_a_loss_of_log_two(pair, columns):
    loss = DPO().loss(columns(pair(DPO()), LOGPROBS, reference=LOGPROBS))
    assert loss.loss_G.item() == pytest.approx(math.log(2))
    assert loss.metrics["accuracy"].item() == 0.5


def test_a_tie_pulls_the_log_ratios_together_and_imitates_neither(pair, columns):
    algorithm = DPO(beta=0.5, keep_ties=True, sft_coef=1.0)
    made = columns(pair(algorithm, (1.0, 1.0)), LOGPROBS, reference=REFERENCE)
    loss = algorithm.loss(made)
    loss.loss_G.sum().backward()
    assert loss.loss_G.item() == pytest.approx(-(math.log(3 / 4) + math.log(1 / 4)) / 2)
    assert loss.metrics["accuracy"].item() == 0.5
    # d/dh of the loss is beta (sigmoid(beta h) - 1/2) = 1/8.
    assert made.logprobs_N.grad.tolist() == pytest.approx([1 / 8, -1 / 8, -1 / 8])


@pytest.mark.parametrize(("free", "needs"), [(False, {"reward", "reference"}), (True, {"reward"})])
def test_the_reference_is_scored_only_where_it_is_compared_with(free, needs):
    assert DPO(reference_free=free).needs == needs


@pytest.mark.parametrize("fields", [{"beta": 0.0}, {"label_smoothing": 0.5}, {"loss_type": "exo"}, {"sft_coef": -1}])
def test_hyper_parameters_out_of_their_bounds_are_refused(fields):
    with pytest.raises(ValidationError, match=next(iter(fields))):
        DPO(**fields)
