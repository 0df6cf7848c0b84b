"""What all policy gradients share, and how the variants of GRPO depart from it, by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from rlhf_cluster.algorithms import CISPO, DAPO, GRPO, GSPO, RLOO, DrGRPO
from rlhf_cluster.testing import make_group

REWARDS = [1.0, 2.0, 3.0, 6.0]  # mean 3, squared deviations 4 + 1 + 0 + 9 = 14


@pytest.fixture
def scored():
    return replace(make_group([2, 1, 3, 4]), rewards=np.array(REWARDS, dtype=np.float32), advantages=None)


def _credit_of(algorithm, group):
    """[G], the first token's of each completion; the others have the same."""
    (credited,) = algorithm.credit([group])
    first_G = credited.advantages[np.cumsum(group.lengths) - group.lengths]
    np.testing.assert_array_equal(group.per_token(first_G), credited.advantages)
    return first_G


@pytest.mark.parametrize(
    ("algorithm", "expected"),
    [
        (GRPO(), np.array([-2.0, -1.0, 0.0, 3.0]) / math.sqrt(14 / 3)),
        (DAPO(), np.array([-2.0, -1.0, 0.0, 3.0]) / math.sqrt(14 / 3)),
        (GSPO(), np.array([-2.0, -1.0, 0.0, 3.0]) / math.sqrt(14 / 3)),
        (CISPO(), np.array([-2.0, -1.0, 0.0, 3.0]) / math.sqrt(14 / 3)),
        (DrGRPO(), [-2.0, -1.0, 0.0, 3.0]),
        (RLOO(), [1 - 11 / 3, 2 - 10 / 3, 3 - 9 / 3, 6 - 6 / 3]),
        # Penalties from 2 tokens on, a half a token: 0, 0, -0.5 and -1, so rewards 1, 2, 2.5 and 5 of mean 2.625.
        (DrGRPO(overlong_length=4, overlong_cache=2), [-1.625, -0.625, -0.125, 2.375]),
    ],
    ids=lambda value: getattr(value, "type", ""),
)
def test_each_has_the_advantages_of_its_paper(algorithm, expected, scored):
    np.testing.assert_allclose(_credit_of(algorithm, scored), expected, rtol=1e-5)


def test_dynamic_sampling_looks_at_what_was_paid_before_the_length_is_punished(scored):
    equal = replace(scored, rewards=np.ones(4, dtype=np.float32))
    assert DAPO(overlong_length=4, overlong_cache=2).drop_reason(equal) == "zero_variance"
    assert DAPO(keep_zero_variance=True).drop_reason(equal) is None


@pytest.mark.parametrize(
    ("algorithm", "weights"),
    # Two completions of 1 and 3 tokens.
    [(DAPO(), [1 / 4] * 4), (GSPO(), [1 / 2, 1 / 6, 1 / 6, 1 / 6]), (DrGRPO(constant_length=10), [1 / 20] * 4)],
    ids=lambda value: getattr(value, "type", ""),
)
def test_each_averages_as_its_paper_does(algorithm, weights):
    groups = [make_group([1, 3])]
    (relative,) = algorithm.token_weights(groups)
    np.testing.assert_allclose(relative / algorithm.normaliser(groups), weights, rtol=1e-6)


@pytest.fixture
def microbatch(columns):
    """Completions of two tokens and of one, with ratios 2, 4.5 and 0.5 to the start of the step and, of that to the
    engine, 4, 0.25 and 1.5."""

    def make(advantages, **changed):
        group = replace(make_group([2, 1]), advantages=np.array(advantages, dtype=np.float32))
        old = torch.tensor([-3.0, -4.0, -1.0], dtype=torch.float64)
        made = columns([group], old + torch.tensor([2.0, 4.5, 0.5], dtype=torch.float64).log())
        behaviour = old - torch.tensor([4.0, 0.25, 1.5], dtype=torch.float64).log()
        return replace(made, old_logprobs_N=old, behaviour_logprobs_N=behaviour, **changed)

    return make


@pytest.mark.parametrize(
    ("fields", "weights"),
    [
        ({}, [2.0, 0.25, 1.5]),
        ({"tis_cap": 3.0}, [3.0, 0.25, 1.5]),
        ({"importance": "sequence"}, [1.0, 1.0, 1.5]),  # 4 times 0.25
        ({"importance": "geometric", "tis_cap": 1.2}, [1.0, 1.0, 1.2]),
        ({"importance": "masked"}, [4.0, 0.0, 1.5]),
        ({"importance": "masked", "mask_low": 0.2, "mask_high": 2.0}, [0.0, 0.25, 1.5]),
    ],
)
def test_tokens_are_weighted_by_the_chosen_level(fields, weights, microbatch):
    made = microbatch([1.0, 1.0, 1.0])
    weighted, plain = GRPO(**fields).loss(made), GRPO(importance="none").loss(made)
    assert weighted.metrics["tis_weight"].tolist() == pytest.approx(weights)
    torch.testing.assert_close(weighted.loss_N, plain.loss_N * torch.tensor(weights, dtype=torch.float64))
    assert "tis_weight" not in plain.metrics


def test_the_entropy_is_asked_for_and_raised_only_where_it_has_a_coefficient(microbatch):
    made = microbatch([1.0, 1.0, 1.0], entropy_N=torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64))
    difference = GRPO(entropy_coef=0.1).loss(made).loss_N - GRPO().loss(made).loss_N
    assert difference.tolist() == pytest.approx([-0.1, -0.2, -0.3])
    assert (GRPO(entropy_coef=0.1).wants_entropy, GRPO().wants_entropy) == (True, False)


def test_epochs_and_minibatches_are_the_updates_of_a_step():
    assert GRPO().updates == (1, 1)
    assert GRPO(num_epochs=2, num_minibatches=4).updates == (2, 4)


def test_gspo_clips_completions_as_wholes(microbatch):
    # The first has the ratio sqrt(2 * 4.5) = 3, beyond 1.5 with a positive advantage; the second 0.5, inside its bound.
    made = microbatch([2.0, 2.0, 2.0])
    result = GSPO(clip_low=0.6, clip_high=0.5, importance="none").loss(made)
    (gradient,) = torch.autograd.grad(result.loss_N.sum(), made.logprobs_N)
    assert result.loss_N.tolist() == pytest.approx([-3.0, -3.0, -1.0])
    assert gradient.tolist() == pytest.approx([0.0, 0.0, -1.0])
    assert result.metrics["clip_fraction"].tolist() == [1.0, 1.0, 0.0]


def test_gspo_by_token_is_gspo_where_a_completion_has_one_advantage(microbatch):
    made = microbatch([-2.0, -2.0, 1.0])
    weights_N = torch.tensor([1 / 2, 1 / 2, 1.0], dtype=torch.float64)
    totals = [(weights_N * GSPO(gradient=each).loss(made).loss_N).sum() for each in ("sequence", "token")]
    torch.testing.assert_close(totals[1], totals[0])
    first, second = (torch.autograd.grad(total, made.logprobs_N) for total in totals)
    torch.testing.assert_close(second, first)


def test_gspo_agrees_with_finite_differences(microbatch):
    made = microbatch([-2.0, 1.0, 1.0])
    algorithm = GSPO(clip_low=0.9, clip_high=9.0)
    assert torch.autograd.gradcheck(
        lambda logprobs_N: algorithm.loss(replace(made, logprobs_N=logprobs_N)).loss_N, made.logprobs_N
    )


def test_cispo_goes_on_teaching_the_tokens_that_grpo_clips(microbatch):
    made = microbatch([1.0, 1.0, 1.0])
    of_grpo, of_cispo = (
        torch.autograd.grad(algorithm.loss(made).loss_N.sum(), made.logprobs_N)[0]
        for algorithm in (GRPO(importance="none"), CISPO(clip_high=3.0, importance="none"))
    )
    assert of_grpo.tolist() == pytest.approx([0.0, 0.0, -0.5])
    assert of_cispo.tolist() == pytest.approx([-2.0, -4.0, -0.5])


def test_dapo_has_more_room_above_than_below(columns):
    group = replace(make_group([2]), advantages=np.array([1.0, 1.0], dtype=np.float32))
    made = columns([group], np.log([1.25, 1.3]))
    made = replace(made, old_logprobs_N=torch.zeros(2, dtype=torch.float64))
    assert DAPO(importance="none").loss(made).loss_N.tolist() == pytest.approx([-1.25, -1.28])
    assert GRPO(importance="none").loss(made).loss_N.tolist() == pytest.approx([-1.2, -1.2])


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"overlong_length": 64}, "overlong_cache = None"),
        ({"overlong_cache": 16}, "overlong_length = None"),
        ({"overlong_length": 64, "overlong_cache": 65}, "a part of it"),
        ({"importance": "tokens"}, "importance"),
        ({"num_epochs": 0}, "num_epochs"),
    ],
)
def test_fields_that_do_not_fit_are_refused(fields, words):
    with pytest.raises(ValidationError, match=words):
        DAPO(**fields)
