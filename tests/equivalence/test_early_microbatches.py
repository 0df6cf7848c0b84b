"""Two DDP ranks that begin their steps early do, to the bit, what two ranks do that wait for the whole batch."""

from __future__ import annotations

import asyncio
import multiprocessing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rlhf_cluster.algorithms import GRPO
from rlhf_cluster.learner.settings import LearnerSettings, OptimizerSettings
from rlhf_cluster.learner.spec import LearnerSpec
from rlhf_cluster.records import Batch
from rlhf_cluster.testing import make_group, save_tiny_model

NUM_STEPS = 4
HEADS = {0: (2, 5), 1: (), 2: (7,), 3: (3, 6)}
"""By step, numbers of groups that are learned early."""
ALGORITHM = GRPO(aggregation="sequence")


def batch(step: int) -> Batch:
    lengths = np.random.default_rng(step).integers(1, 14, (8, 4))
    return Batch(step=step, groups=tuple(make_group(group, request_id=n) for n, group in enumerate(lengths)))


@dataclass(frozen=True)
class Trained:
    metrics: list[dict[str, float]]
    early_shares: list[float]
    fingerprint: str


def train(model_path: Path, *, rank: int, meeting_point: str, packing: str, early: bool) -> Trained:
    from rlhf_cluster.learner.role import LearnerRole
    from rlhf_cluster.weights.memory import MemoryTransport

    spec = LearnerSpec(
        settings=LearnerSettings(
            backend="ddp",
            num_ranks=2,
            precision="fp32",
            packing=packing,
            microbatch_tokens=32,
            max_row_tokens=32,
            optimizer=OptimizerSettings(lr=1e-3),
            collective_timeout_s=60,
        ),
        model_path=model_path,
        temperature=1.0,
        num_steps=NUM_STEPS,
        seed=0,
        serving_dtype="float32",
        probe_token_ids=np.arange(2, 10, dtype=np.int32),
        probe_tolerance=1e-3,
    )

    async def steps() -> Trained:
        role = LearnerRole(spec, rank=rank, num_ranks=2, transport=MemoryTransport())
        await role.start(meeting_point)
        reports = []
        for step in range(NUM_STEPS):
            for num_groups in HEADS[step] if early else ():
                # One rank may miss a call: what it did not learn early it learns in the update.
                if not (rank == 1 and step == 3):
                    await role.accumulate(ALGORITHM, batch(step).groups[:num_groups], step=step)
            reports.append(await role.update(ALGORITHM, batch(step)))
        handle = await role.publish()
        await role.close()
        names = ("learner/loss", "learner/grad_norm", "learner/entropy", "learner/mismatch_kl")
        return Trained(
            metrics=[{name: report.metrics[name] for name in names} for report in reports],
            early_shares=[report.metrics["learner/early_share"] for report in reports],
            fingerprint=handle.manifest.fingerprint if handle else "",
        )

    return asyncio.run(steps())


def train_all(model_path: Path, *, rank: int) -> dict[tuple[str, bool], Trained]:
    """Early and late, by packing, one after the other in the same two processes."""
    return {
        (packing, early): train(
            model_path,
            rank=rank,
            meeting_point=f"file://{model_path / f'meet-{packing}-{early}'}",
            packing=packing,
            early=early,
        )
        for packing in ("prefix", "padded")
        for early in (True, False)
    }


def second_rank(model_path: Path) -> None:
    train_all(model_path, rank=1)


def test_two_ranks_that_begin_early_train_as_two_that_wait(tmp_path):
    model_path = save_tiny_model(tmp_path / "model")
    other = multiprocessing.get_context("spawn").Process(target=second_rank, args=(model_path,))
    other.start()
    try:
        trained = train_all(model_path, rank=0)
        other.join(timeout=60)
        assert other.exitcode == 0
    finally:
        other.kill()
        other.join()
    for packing in ("prefix", "padded"):
        early, late = trained[packing, True], trained[packing, False]
        assert early.metrics == late.metrics
        assert early.fingerprint == late.fingerprint
        assert [share > 0 for share in early.early_shares] == [True, False, True, True]
        assert late.early_shares == [0.0] * NUM_STEPS
