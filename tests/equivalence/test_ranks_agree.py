"""Two DDP ranks in two processes do what one rank does: same loss, same gradient norm, same weights."""

from __future__ import annotations

import multiprocessing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from rlhf_cluster.algorithms import DPO, GRPO, PPO, Algorithm, RewardModel
from rlhf_cluster.errors import StepRefused
from rlhf_cluster.learner.role import LearnerRole
from rlhf_cluster.learner.settings import LearnerSettings, OptimizerSettings
from rlhf_cluster.learner.spec import LearnerSpec
from rlhf_cluster.models.settings import LoraSettings
from rlhf_cluster.records import Batch, StepReport
from rlhf_cluster.testing import make_group, save_tiny_model, save_tiny_tokenizer

NUM_STEPS = 3
FIGURES = ("learner/loss", "learner/grad_norm")


@dataclass(frozen=True, kw_only=True)
class Kind:
    """What is trained, as which of its figures has to agree besides `FIGURES`."""

    algorithm: Algorithm
    figures: tuple[str, ...]
    lora: LoraSettings | None = None

    @property
    def is_policy(self) -> bool:
        return self.algorithm.model == "policy"


OF_TOKENS = ("learner/entropy", "learner/mismatch_kl")
GRPO_WHOLE = Kind(algorithm=GRPO(), figures=OF_TOKENS)
KINDS = (
    GRPO_WHOLE,
    Kind(algorithm=GRPO(), figures=OF_TOKENS, lora=LoraSettings(rank=4)),
    Kind(algorithm=PPO(kl_coef=0.1, num_epochs=2, num_minibatches=2), figures=("learner/value_loss",)),
    Kind(algorithm=DPO(), figures=("learner/margin", "learner/accuracy")),
    Kind(algorithm=RewardModel(), figures=("learner/margin", "learner/accuracy")),
)


def batch(step: int) -> Batch:
    # Five groups, so that two ranks cannot share them evenly, and a last step with fewer rows than ranks.
    lengths = [(3, 7, 1), (5, 5, 9), (20, 1), (4, 4), (2, 2, 2)] if step < NUM_STEPS - 1 else [(6, 2)]
    return Batch(step=step, groups=tuple(make_group(ls, request_id=n) for n, ls in enumerate(lengths)))


def pairs(step: int) -> Batch:
    """The first two completions of each group, the first preferred."""
    groups = [group.select(np.arange(group.num_completions) < 2) for group in batch(step).groups]
    return Batch(step=step, groups=tuple(replace(group, rewards=np.array([1, 0], np.float32)) for group in groups))


async def update(role: LearnerRole, algorithm: Algorithm, step: int) -> StepReport:
    if algorithm.model == "reward_model" or algorithm.type == "dpo":
        return await role.update(algorithm, Batch(step=step, groups=algorithm.credit(pairs(step).groups)))
    if "value" in algorithm.needs:
        valued = await role.score(batch(step).groups)
        return await role.update(algorithm, Batch(step=step, groups=algorithm.credit(valued)))
    return await role.update(algorithm, batch(step))


async def told(role: LearnerRole, kind: Kind) -> np.ndarray:
    """Every value of the critic or score of the reward model, on each rank the whole; of a policy nothing."""
    if kind.is_policy:
        return np.zeros(0)
    groups = await role.score(pairs(0).groups)
    columns = [group.values if group.values is not None else group.rewards for group in groups]
    return np.concatenate(columns)


def poisoned() -> Batch:
    """A batch of which one group's reference is not a number."""
    good = batch(0)
    bad = replace(good.groups[3], reference_logprobs=np.full(good.groups[3].num_tokens, np.nan, np.float32))
    return replace(good, groups=(*good.groups[:3], bad, good.groups[4]))


async def is_refused(role: LearnerRole) -> bool:
    """For the one group, by every rank, whichever of them has its rows."""
    with pytest.raises(StepRefused, match="Not finite in 1 of 5 groups: reference_logprobs") as caught:
        await role.update(GRPO(kl_coef=0.1), poisoned())
    return caught.value.request_ids == (3,)


def train(
    model_path: Path, kind: Kind, *, rank: int, num_ranks: int, meeting_point: str | None
) -> tuple[list[StepReport], dict[str, np.ndarray], np.ndarray]:
    import asyncio

    from rlhf_cluster.weights.filesystem import FilesystemTransport

    spec = LearnerSpec(
        settings=LearnerSettings(
            backend="ddp" if num_ranks > 1 else "plain",
            num_ranks=num_ranks,
            precision="fp32",
            lora=kind.lora,
            microbatch_tokens=32,
            optimizer=OptimizerSettings(lr=1e-3),
            collective_timeout_s=200,
        ),
        model_path=model_path,
        temperature=1.0,
        num_steps=NUM_STEPS,
        seed=0,
        serving_dtype="float32",
        probe_token_ids=np.arange(2, 10, dtype=np.int32),
        probe_tolerance=1e-3,
        model=kind.algorithm.model,
    )
    transport = FilesystemTransport(model_path / f"weights-{num_ranks}-{rank}")

    async def steps() -> tuple[list[StepReport], dict[str, np.ndarray], np.ndarray]:
        role = LearnerRole(spec, rank=rank, num_ranks=num_ranks, transport=transport)
        await role.start(meeting_point)
        reports = [await update(role, kind.algorithm, step) for step in range(NUM_STEPS)]
        weights: dict[str, np.ndarray] = {}
        if kind.is_policy and kind.algorithm.type == "grpo":
            # Each rank counts its share as it goes, and at the end of a step all of it.
            assert (await role.status()).tokens_total == sum(batch(step).num_tokens for step in range(NUM_STEPS))
            assert await is_refused(role)
            await role.save(saved_by(model_path, num_ranks=num_ranks), with_state=True)
        if kind.algorithm.model != "reward_model":
            handle = await role.publish()
            weights = {name: tensor.numpy().copy() for name, tensor in _weights(handle, transport)} if handle else {}
        found = await told(role, kind)
        await role.close()
        return reports, weights, found

    return asyncio.run(steps())


def _weights(handle, transport):
    from rlhf_cluster.weights.flat import unflatten

    return unflatten(handle.manifest, transport.fetch(handle))


def saved_by(model_path: Path, *, num_ranks: int) -> Path:
    path = model_path / f"saved-{num_ranks}"
    path.mkdir(exist_ok=True)
    return path


def second_rank(model_path: Path, meeting_points: tuple[str, ...]) -> None:
    for kind, meeting_point in zip(KINDS, meeting_points, strict=True):
        train(model_path, kind, rank=1, num_ranks=2, meeting_point=meeting_point)


def test_two_ranks_train_as_one_does(tmp_path):
    model_path = save_tiny_model(tmp_path / "model")
    save_tiny_tokenizer(model_path)
    alone = [train(model_path, kind, rank=0, num_ranks=1, meeting_point=None) for kind in KINDS]
    meeting_points = tuple(f"file://{tmp_path / f'meet-{number}'}" for number in range(len(KINDS)))
    other = multiprocessing.get_context("spawn").Process(target=second_rank, args=(model_path, meeting_points))
    other.start()
    try:
        together = [
            train(model_path, kind, rank=0, num_ranks=2, meeting_point=meeting_point)
            for kind, meeting_point in zip(KINDS, meeting_points, strict=True)
        ]
        other.join(timeout=60)
        assert other.exitcode == 0
    finally:
        other.kill()
        other.join()
    for kind, one, two in zip(KINDS, alone, together, strict=True):
        assert_agree(kind, one, two)
    files = [{file.name for file in saved_by(model_path, num_ranks=num_ranks).iterdir()} for num_ranks in (1, 2)]
    assert files[1] - files[0] == {"generators_rank-1.pt"}


def assert_agree(kind: Kind, alone, together) -> None:
    (alone, alone_weights, alone_told), (together, together_weights, together_told) = alone, together
    name_of_kind = kind.algorithm.type
    for one, two in zip(alone, together, strict=True):
        for name in (*FIGURES, *kind.figures):
            assert two.metrics[name] == pytest.approx(one.metrics[name], rel=2e-5, abs=1e-6), (name_of_kind, name)
    assert together_told == pytest.approx(alone_told, abs=1e-4), name_of_kind
    assert kind.is_policy or np.ptp(alone_told) > 1e-2, "something was learned that could differ"
    for name, tensor in alone_weights.items():
        # Adam divides a gradient by its own size, so where it is nearly zero a rounding shows: one weight in 10,000, by
        # a few per cent of a step, as between any two layouts of the same batch on one rank.
        difference = np.abs(together_weights[name] - tensor)
        assert difference.max() < 1e-4, (name_of_kind, name)
        assert (difference > 2e-6).sum() <= 4, (name_of_kind, name)
