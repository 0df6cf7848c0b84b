"""What driver and learner rely on, of any algorithm: the suite that every built-in one passes, for one of your own.

    from rlhf_cluster.testing.algorithm_contract import check_algorithm

    def test_my_algorithm_keeps_the_contract():
        check_algorithm(MyAlgorithm(strength=0.5))

Each check raises `AssertionError`, and its docstring is what it holds the algorithm to. No model is loaded: the outputs
of the network are drawn, and are themselves what the gradient is taken of.
"""

from __future__ import annotations

import copy
import pickle
from collections.abc import Sequence
from dataclasses import fields, replace
from types import FunctionType

import numpy as np
import torch
from pydantic import ValidationError

from rlhf_cluster.algorithms import Algorithm, GroupLoss, TokenLoss, resolve, type_name
from rlhf_cluster.data.packing import Microbatch, build_microbatch, rows_of
from rlhf_cluster.learner.columns import BatchColumns
from rlhf_cluster.learner.predictions import weighted
from rlhf_cluster.models.outputs import Outputs
from rlhf_cluster.records import RolloutGroup
from rlhf_cluster.testing.groups import make_group

LENGTHS = ((3, 1, 5), (2, 4), (6, 2, 1, 3))
"""Of the completions of each group that the algorithm is tried on."""
ONE_MICROBATCH = (100, 100)
CUTS = ((1, 100), (1, 8), (2, 8))
"""Ways to cut the batch: rows of a microbatch, tokens of a row."""


def check_algorithm(algorithm: Algorithm) -> None:
    """All of `CHECKS`. Raises the first one's `AssertionError`, with a note of what it asks for."""
    for check in CHECKS:
        try:
            check(algorithm)
        except AssertionError as error:
            error.add_note(f"{type_name(algorithm)}, {check.__name__}: {check.__doc__}")
            raise


def is_a_frozen_value(algorithm: Algorithm) -> None:
    """No field can be set, a copy is equal and has the same hash."""
    for name in type(algorithm).model_fields:
        try:
            setattr(algorithm, name, getattr(algorithm, name))
        except ValidationError:
            continue
        raise AssertionError(f"{name} can be set: leave `model_config` as it is in `Algorithm`")
    assert hash(algorithm) == hash(copy.deepcopy(algorithm)), "equal values with different hashes"


def travels_and_its_table_gives_it_again(algorithm: Algorithm) -> None:
    """It survives pickling, and the table that a job writes down for it resolves to an equal value."""
    assert pickle.loads(pickle.dumps(algorithm)) == algorithm, "pickling gave another value"
    table = {"type": type_name(algorithm), **algorithm.model_dump(mode="json", exclude={"type"})}
    assert resolve(table) == algorithm, f"{table} gave {resolve(table)!r}"


def needs_and_repeats_what_there_is(algorithm: Algorithm) -> None:
    """`needs` names columns of the driver, the values among them where there is a critic; `updates` are 1 or more."""
    known = {"reward", "reference", "value"}
    assert algorithm.needs <= known, f"needs {sorted(algorithm.needs - known)}, and there are {sorted(known)}"
    assert min(algorithm.updates) >= 1, f"updates {algorithm.updates}"
    assert "value" in algorithm.needs or algorithm.model != "policy_and_critic", "has a critic and needs no values"


def keeps_groups_that_teach_and_drops_empty_ones(algorithm: Algorithm) -> None:
    """`drop_reason` is None for groups with different rewards, and a word for one without completions."""
    groups = scored_groups(algorithm)
    reasons = [algorithm.drop_reason(group) for group in groups]
    assert reasons == [None] * len(groups), f"groups of {list(map(len, LENGTHS))} completions are dropped: {reasons}"
    empty = groups[0].select(np.zeros(groups[0].num_completions, dtype=bool))
    assert algorithm.drop_reason(empty), "a group without completions is kept"


def credits_its_columns_and_changes_no_others(algorithm: Algorithm) -> None:
    """`credit` fills `advantages` (and `returns` with a critic), float32 and finite for every token; it keeps the order
    of the groups and leaves those it was given as they were."""
    groups = scored_groups(algorithm)
    before = copy.deepcopy(groups)
    credited = algorithm.credit(groups)
    assert [group.request_id for group in credited] == [group.request_id for group in groups], "other groups, or order"
    for group in credited:
        for name in _credited_columns(algorithm):
            column = getattr(group, name)
            assert column is not None, f"{name} is not filled"
            assert column.dtype == np.float32, f"{name} is {column.dtype}"
            assert column.shape == (group.num_tokens,), f"{name} is {column.shape} for {group.num_tokens} tokens"
            assert np.isfinite(column).all(), f"{name} is not finite"
    for group, was in zip(groups, before, strict=True):
        for name in {field.name for field in fields(group)} - {"prompt"}:
            np.testing.assert_equal(getattr(group, name), getattr(was, name), err_msg=f"credit changed {name}")


def weighs_every_trained_token(algorithm: Algorithm) -> None:
    """`token_weights` is one float32 above 0 for every trained token, `normaliser` is above 0."""
    credited = algorithm.credit(scored_groups(algorithm))
    assert algorithm.normaliser(credited) > 0, f"normaliser {algorithm.normaliser(credited)}"
    if algorithm.whole_groups:
        return
    weights = algorithm.token_weights(credited)
    assert [part.shape for part in weights] == [(group.num_trained_tokens,) for group in credited], "their shapes"
    assert all(part.dtype == np.float32 for part in weights), f"they are {weights[0].dtype}"
    assert all((part > 0).all() for part in weights), "some are 0 or less: a token that teaches nothing has advantage 0"


def has_a_finite_loss_with_a_gradient(algorithm: Algorithm) -> None:
    """The loss and every figure are finite and one a token (a group, where groups are compared), the gradient is
    finite and not 0, and figures carry none."""
    found, (parts,) = _gradients(algorithm, algorithm.credit(scored_groups(algorithm)), cut=ONE_MICROBATCH)
    assert all(grad.isfinite().all() and grad.abs().sum() > 0 for grad in found), "the gradient is 0 or not finite"
    assert isinstance(parts, GroupLoss) == algorithm.whole_groups, f"a {type(parts).__name__}, see `whole_groups`"
    loss = parts.loss_G if isinstance(parts, GroupLoss) else parts.loss_N
    for name, values in parts.metrics.items():
        assert values.shape == loss.shape, f"metric {name} is {tuple(values.shape)}, the loss {tuple(loss.shape)}"
        assert values.isfinite().all(), f"metric {name} is not finite"
        assert not values.requires_grad, f"metric {name} has a gradient: detach it"


def is_pure(algorithm: Algorithm) -> None:
    """Asked twice it says the same, to the bit."""
    credited = algorithm.credit(scored_groups(algorithm))
    first, again = (_gradients(algorithm, credited, cut=ONE_MICROBATCH)[0] for _ in range(2))
    assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True)), "two gradients of one batch"
    for one, other in zip(credited, algorithm.credit(scored_groups(algorithm)), strict=True):
        for name in _credited_columns(algorithm):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=f"two {name} of one group")


def has_one_gradient_however_the_batch_is_cut(algorithm: Algorithm) -> None:
    """Microbatches change nothing: whatever normalises is in `token_weights` and `normaliser`, and not in `loss`."""
    credited = algorithm.credit(scored_groups(algorithm))
    whole, _ = _gradients(algorithm, credited, cut=ONE_MICROBATCH)
    for cut in CUTS:
        found, parts = _gradients(algorithm, credited, cut=cut)
        assert len(parts) > 1
        torch.testing.assert_close(found, whole)


def says_of_a_group_alone_what_it_says_in_a_batch(algorithm: Algorithm) -> None:
    """Where it claims to go `by_group`, no other group changes what it says of one."""
    if not algorithm.by_group:
        return
    groups = scored_groups(algorithm)
    for group, in_batch in zip(groups, algorithm.credit(groups), strict=True):
        (alone,) = algorithm.credit([group])
        np.testing.assert_array_equal(alone.advantages, in_batch.advantages)
        if not algorithm.whole_groups:
            np.testing.assert_array_equal(algorithm.token_weights([alone])[0], algorithm.token_weights([in_batch])[0])


def takes_no_groups_for_no_error(algorithm: Algorithm) -> None:
    """Of an empty batch there is nothing to credit, something to divide by, and nothing to adapt to."""
    assert algorithm.credit([]) == (), "credit([]) is not ()"
    assert algorithm.normaliser([]) > 0, f"normaliser([]) is {algorithm.normaliser([])}"
    assert algorithm.adapted([]) == algorithm, "adapted([]) is another algorithm"


CHECKS: tuple[FunctionType, ...] = (
    is_a_frozen_value,
    travels_and_its_table_gives_it_again,
    needs_and_repeats_what_there_is,
    keeps_groups_that_teach_and_drops_empty_ones,
    credits_its_columns_and_changes_no_others,
    weighs_every_trained_token,
    has_a_finite_loss_with_a_gradient,
    is_pure,
    has_one_gradient_however_the_batch_is_cut,
    says_of_a_group_alone_what_it_says_in_a_batch,
    takes_no_groups_for_no_error,
)


def scored_groups(algorithm: Algorithm) -> list[RolloutGroup]:
    """As the driver hands them over: scored, not credited; in one of them some tokens are not trained on."""
    draw = np.random.default_rng(0)
    mask = np.array([True, False, True, False, True, True])
    made = [make_group(lengths, request_id=number) for number, lengths in enumerate(LENGTHS)]
    return [
        replace(
            group,
            advantages=None,
            reference_logprobs=group.reference_logprobs if "reference" in algorithm.needs else None,
            values=draw.normal(size=group.num_tokens).astype(np.float32) if "value" in algorithm.needs else None,
            loss_mask=mask if number == 1 else None,
        )
        for number, group in enumerate(made)
    ]


def _credited_columns(algorithm: Algorithm) -> tuple[str, ...]:
    return {"policy": ("advantages",), "policy_and_critic": ("advantages", "returns"), "reward_model": ()}[
        algorithm.model
    ]


class _Network:
    """Stands for the trained network: its outputs for each token and completion are the parameters themselves."""

    def __init__(self, algorithm: Algorithm, groups: Sequence[RolloutGroup]) -> None:
        draw = torch.Generator().manual_seed(0)
        num_tokens = sum(group.num_trained_tokens for group in groups)
        num_completions = sum(group.num_completions for group in groups)
        self._logprobs = (-torch.rand(num_tokens, generator=draw) * 4).requires_grad_()
        self._entropy = torch.rand(num_tokens, generator=draw).requires_grad_() if algorithm.wants_entropy else None
        has_critic, has_scores = algorithm.model == "policy_and_critic", algorithm.model == "reward_model"
        self._values = torch.randn(num_tokens, generator=draw).requires_grad_() if has_critic else None
        self._scores = torch.randn(num_completions, generator=draw).requires_grad_() if has_scores else None

    def __call__(self, microbatch: Microbatch) -> Outputs:
        if self._scores is not None:
            return Outputs(scores_S=self._scores[torch.from_numpy(microbatch.completion_S)])
        origin_N = torch.from_numpy(microbatch.origin_N)
        return Outputs(
            logprobs_N=self._logprobs[origin_N],
            entropy_N=None if self._entropy is None else self._entropy[origin_N],
            values_N=None if self._values is None else self._values[origin_N],
        )

    def gradients(self) -> list[torch.Tensor]:
        of_policy = (self._logprobs, self._entropy, self._values)
        outputs = of_policy if self._scores is None else (self._scores,)
        return [torch.zeros_like(each) if each.grad is None else each.grad for each in outputs if each is not None]


def _gradients(
    algorithm: Algorithm, groups: Sequence[RolloutGroup], *, cut: tuple[int, int]
) -> tuple[list[torch.Tensor], list[TokenLoss | GroupLoss]]:
    """Of the sum over microbatches, before the normaliser, in every output; and each microbatch's parts of the loss."""
    rows_a_microbatch, max_row_tokens = cut
    network = _Network(algorithm, groups)
    old = [group.logprobs + np.float32(0.1) for group in groups]
    columns = BatchColumns.of(algorithm, groups, device=torch.device("cpu"), old_logprobs=old)
    rows = rows_of(
        groups, share_prompt=True, max_row_tokens=max_row_tokens, whole_groups=algorithm.whole_groups, with_last=True
    )
    parts = []
    for first in range(0, len(rows), rows_a_microbatch):
        microbatch = build_microbatch(groups, rows[first : first + rows_a_microbatch], with_last=True)
        parts.append(algorithm.loss(columns.tensors_of(microbatch, network(microbatch))))
        weighted(parts[-1], columns, microbatch).backward()
    return network.gradients(), parts
