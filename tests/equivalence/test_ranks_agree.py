"""Two DDP ranks in two processes do what one rank does: same loss, same gradient norm, same weights."""

from __future__ import annotations

import multiprocessing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rlhf_cluster.algorithms import GRPO
from rlhf_cluster.errors import StepRefused
from rlhf_cluster.learner.role import LearnerRole
from rlhf_cluster.learner.settings import LearnerSettings, OptimizerSettings
from rlhf_cluster.learner.spec import LearnerSpec
from rlhf_cluster.models.settings import LoraSettings
from rlhf_cluster.records import Batch, StepReport
from rlhf_cluster.testing import make_group, save_tiny_model

NUM_STEPS = 3


def batch(step: int) -> Batch:
    # Five groups, so that two ranks cannot share them evenly, and a last step with fewer rows than ranks.
    lengths = [(3, 7, 1), (5, 5, 9), (20, 1), (4, 4), (2, 2, 2)] if step < NUM_STEPS - 1 else [(6, 2)]
    return Batch(step=step, groups=tuple(make_group(ls, request_id=n) for n, ls in enumerate(lengths)))


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
    model_path: Path, *, rank: int, num_ranks: int, meeting_point: str | None, lora: LoraSettings | None = None
) -> tuple[list[StepReport], str]:
    import asyncio

    from rlhf_cluster.weights.filesystem import FilesystemTransport

    spec = LearnerSpec(
        settings=LearnerSettings(
            backend="ddp" if num_ranks > 1 else "plain",
            num_ranks=num_ranks,
            precision="fp32",
            lora=lora,
            microbatch_tokens=32,
            optimizer=OptimizerSettings(lr=1e-3),
            collective_timeout_s=120,
        ),
        model_path=model_path,
        temperature=1.0,
        num_steps=NUM_STEPS,
        seed=0,
        serving_dtype="float32",
        probe_token_ids=np.arange(2, 10, dtype=np.int32),
        probe_tolerance=1e-3,
    )
    transport = FilesystemTransport(model_path / f"weights-{num_ranks}-{rank}")

    async def steps() -> tuple[list[StepReport], str]:
        role = LearnerRole(spec, rank=rank, num_ranks=num_ranks, transport=transport)
        await role.start(meeting_point)
        reports = [await role.update(GRPO(), batch(step)) for step in range(NUM_STEPS)]
        # Each rank counts its share as it goes, and at the end of a step all of it.
        assert (await role.status()).tokens_total == sum(batch(step).num_tokens for step in range(NUM_STEPS))
        assert await is_refused(role)
        await role.save(saved_by(model_path, num_ranks=num_ranks), with_state=True)
        handle = await role.publish()
        weights = {name: tensor.numpy().copy() for name, tensor in _weights(handle, transport)} if handle else {}
        await role.close()
        return reports, weights

    return asyncio.run(steps())


def _weights(handle, transport):
    from rlhf_cluster.weights.flat import unflatten

    return unflatten(handle.manifest, transport.fetch(handle))


def saved_by(model_path: Path, *, num_ranks: int) -> Path:
    path = model_path / f"saved-{num_ranks}"
    path.mkdir(exist_ok=True)
    return path


def second_rank(model_path: Path, meeting_points: dict[LoraSettings | None, str]) -> None:
    for lora, meeting_point in meeting_points.items():
        train(model_path, rank=1, num_ranks=2, meeting_point=meeting_point, lora=lora)


def test_two_ranks_train_as_one_does(tmp_path):
    model_path = save_tiny_model(tmp_path / "model")
    kinds = (None, LoraSettings(rank=4))
    alone = [train(model_path, rank=0, num_ranks=1, meeting_point=None, lora=lora) for lora in kinds]
    meeting_points = {lora: f"file://{tmp_path / f'meet-{number}'}" for number, lora in enumerate(kinds)}
    other = multiprocessing.get_context("spawn").Process(target=second_rank, args=(model_path, meeting_points))
    other.start()
    try:
        together = [
            train(model_path, rank=0, num_ranks=2, meeting_point=meeting_points[lora], lora=lora) for lora in kinds
        ]
        other.join(timeout=60)
        assert other.exitcode == 0
    finally:
        other.kill()
        other.join()
    for one, two in zip(alone, together, strict=True):
        assert_agree(one, two)
    files = [{file.name for file in saved_by(model_path, num_ranks=num_ranks).iterdir()} for num_ranks in (1, 2)]
    assert files[1] - files[0] == {"generators_rank-1.pt"}


def assert_agree(alone, together) -> None:
    (alone, alone_weights), (together, together_weights) = alone, together
    for one, two in zip(alone, together, strict=True):
        for name in ("learner/loss", "learner/grad_norm", "learner/entropy", "learner/mismatch_kl"):
            assert two.metrics[name] == pytest.approx(one.metrics[name], rel=1e-5, abs=1e-6), name
    for name, tensor in alone_weights.items():
        # Adam divides a gradient by its own size, so where it is nearly zero a rounding shows: one weight in 10,000, by
        # a few per cent of a step, as between any two layouts of the same batch on one rank.
        difference = np.abs(together_weights[name] - tensor)
        assert difference.max() < 1e-4, name
        assert (difference > 2e-6).sum() <= 4, name
