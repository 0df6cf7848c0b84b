"""A step that was begun before its batch was complete is, to the bit, the step that was not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch

from rlhf_cluster.algorithms import GRPO, SFT, Algorithm
from rlhf_cluster.errors import LearnerError
from rlhf_cluster.learner.rank import LearnerRank
from rlhf_cluster.learner.settings import LearnerSettings, OptimizerSettings
from rlhf_cluster.learner.spec import LearnerSpec
from rlhf_cluster.models.settings import LoraSettings
from rlhf_cluster.records import Batch, RolloutGroup, StepReport
from rlhf_cluster.testing import make_group, save_tiny_model
from rlhf_cluster.weights.memory import MemoryTransport

OF_THE_WAY_THERE = {"learner/update_s", "learner/tokens_per_s", "learner/early_share"}
ALGORITHMS = [GRPO(), GRPO(aggregation="sequence"), GRPO(aggregation="constant", constant_length=20), SFT()]


@pytest.fixture(scope="module")
def model_path(tmp_path_factory):
    return save_tiny_model(tmp_path_factory.mktemp("tiny"))


def open_rank(model_path, *, precision: str = "fp32", **settings) -> LearnerRank:
    spec = LearnerSpec(
        settings=LearnerSettings(
            precision=precision, optimizer=OptimizerSettings(lr=1e-3), **{"microbatch_tokens": 40, **settings}
        ),
        model_path=model_path,
        temperature=1.0,
        num_steps=10,
        seed=0,
        serving_dtype="float32",
        probe_token_ids=np.arange(2, 14, dtype=np.int32),
        probe_tolerance=1e-3,
    )
    return LearnerRank(spec, rank=0, num_ranks=1, transport=MemoryTransport())


def batch(step: int = 0, *, num_groups: int = 6) -> Batch:
    lengths = np.random.default_rng(step).integers(1, 16, (num_groups, 4))
    groups = [make_group(group, request_id=10 * step + n, num_prompt_tokens=3 + n) for n, group in enumerate(lengths)]
    return Batch(step=step, groups=tuple(groups))


def learn(rank: LearnerRank, algorithm: Algorithm, whole: Batch, *heads: int | Sequence[RolloutGroup]) -> StepReport:
    """A step that was given these heads first; a number is so many groups of the batch itself."""
    for head in heads:
        rank.accumulate(algorithm, whole.groups[:head] if isinstance(head, int) else head, step=whole.step)
    return rank.update(algorithm, whole)


def told(report: StepReport) -> dict[str, str]:
    return {name: value.hex() for name, value in report.metrics.items() if name not in OF_THE_WAY_THERE}


def assert_same(one: LearnerRank, other: LearnerRank) -> None:
    held = dict(other.network.named_parameters())
    assert all(torch.equal(parameter, held[name]) for name, parameter in one.network.named_parameters())
    assert (one.version, one.tokens_total) == (other.version, other.tokens_total)


@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=["token", "sequence", "constant", "sft"])
@pytest.mark.parametrize("packing", ["prefix", "padded"])
def test_steps_begun_early_are_equal_to_the_bit_whatever_the_normalisation(model_path, algorithm, packing):
    early, late = (open_rank(model_path, packing=packing) for _ in range(2))
    for step, heads in enumerate([(1, 3, 5), (5,), ()]):
        begun, whole = learn(early, algorithm, batch(step), *heads), learn(late, algorithm, batch(step))
        assert told(begun) == told(whole)
        assert (begun.metrics["learner/early_share"] > 0.2) == bool(heads)
        assert whole.metrics["learner/early_share"] == 0
    assert_same(early, late)


@pytest.mark.parametrize(
    "settings",
    [
        {"precision": "bf16"},
        {"max_row_tokens": 16},
        {"gradient_checkpointing": True},
        {"train_last_layers": 1},
        {"lora": LoraSettings(rank=4)},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_steps_begun_early_are_equal_to_the_bit_in_every_mode(model_path, settings):
    early, late = (open_rank(model_path, **settings) for _ in range(2))
    for step in range(2):
        assert told(learn(early, GRPO(), batch(step), 2, 4)) == told(learn(late, GRPO(), batch(step)))
    assert_same(early, late)


def test_a_head_is_computed_once_and_shows_in_the_tokens(model_path):
    rank = open_rank(model_path)
    rank.accumulate(GRPO(), batch().groups[:4], step=0)
    done = rank.tokens_total
    assert 0 < done < batch().num_tokens
    rank.accumulate(GRPO(), batch().groups[:4], step=0)
    assert rank.tokens_total == done
    rank.accumulate(GRPO(), batch().groups, step=0)
    assert done < rank.tokens_total < batch().num_tokens, "something is left for the last microbatch"


def other_groups() -> list[RolloutGroup]:
    return list(batch(7).groups[:4])


def other_credit() -> list[RolloutGroup]:
    first, *others = batch().groups[:4]
    return [replace(first, advantages=first.advantages * 2), *others]


def other_tokens() -> list[RolloutGroup]:
    first, *others = batch().groups[:4]
    return [replace(first, token_ids=first.token_ids[::-1].copy()), *others]


def other_prompt() -> list[RolloutGroup]:
    first, *others = batch().groups[:4]
    return [replace(first, prompt=replace(first.prompt, token_ids=first.prompt.token_ids[::-1].copy())), *others]


def longer_than_the_batch() -> list[RolloutGroup]:
    return [*batch().groups, *other_groups()]


@pytest.mark.parametrize("head", [other_groups, other_credit, other_tokens, other_prompt, longer_than_the_batch])
def test_a_head_that_the_batch_does_not_begin_with_is_forgotten(model_path, head):
    misled, late = open_rank(model_path), open_rank(model_path)
    report = learn(misled, GRPO(), batch(), head())
    assert told(report) == told(learn(late, GRPO(), batch()))
    assert report.metrics["learner/early_share"] == 0


def test_a_head_of_another_step_or_algorithm_is_forgotten(model_path):
    misled, late = open_rank(model_path), open_rank(model_path)
    expected = told(learn(late, GRPO(), batch()))
    misled.accumulate(GRPO(), batch().groups[:4], step=3)
    misled.accumulate(GRPO(clip_high=0.3), batch().groups[:4], step=0)
    report = misled.update(GRPO(), batch())
    assert told(report) == expected
    assert report.metrics["learner/early_share"] == 0


def test_a_head_learned_before_a_checkpoint_was_loaded_is_forgotten(model_path, tmp_path):
    misled, late = open_rank(model_path), open_rank(model_path)
    for rank in (misled, late):
        learn(rank, GRPO(), batch(0))
    late.snapshot(with_state=True).write(tmp_path)
    learn(misled, GRPO(), batch(1))
    misled.accumulate(GRPO(), batch(1).groups[:4], step=1)
    misled.load(tmp_path)
    assert told(misled.update(GRPO(), batch(1))) == told(learn(late, GRPO(), batch(1)))


class Flawed(GRPO):
    """Fails in its second microbatch, once."""

    calls: list[int]

    def loss(self, columns):
        self.calls.append(1)
        if len(self.calls) == 2:
            raise RuntimeError("this once")
        return super().loss(columns)


def test_a_head_that_failed_on_the_way_leaves_nothing_behind(model_path):
    broken, late = open_rank(model_path), open_rank(model_path)
    flawed = Flawed(calls=[])
    with pytest.raises(RuntimeError, match="this once"):
        broken.accumulate(flawed, batch().groups[:5], step=0)
    assert told(broken.update(flawed, batch())) == told(learn(late, GRPO(), batch()))


def test_a_step_that_is_not_applied_forgets_its_head_too(model_path):
    rank, late = open_rank(model_path), open_rank(model_path)
    poisoned = batch()
    poisoned.groups[-1].advantages[0] = np.nan
    with pytest.raises(LearnerError, match="the step was not applied"):
        learn(rank, GRPO(), poisoned, 4)
    assert rank.version == 0
    assert told(learn(rank, GRPO(), batch(), 4)) == told(learn(late, GRPO(), batch()))


def test_what_is_published_and_saved_does_not_see_a_head(model_path, tmp_path):
    rank = open_rank(model_path)
    learn(rank, GRPO(), batch(0))
    before = rank.publish().manifest.fingerprint
    rank.accumulate(GRPO(), batch(1).groups[:4], step=1)
    assert rank.publish().manifest.fingerprint == before
    rank.snapshot(with_state=True).write(tmp_path)
    resumed = open_rank(model_path)
    resumed.load(tmp_path)
    assert told(resumed.update(GRPO(), batch(1))) == told(rank.update(GRPO(), batch(1)))
