"""What a rank saves is what it was, all of it, and a disk that refuses is told by name."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from rlhf_cluster.algorithms import GRPO
from rlhf_cluster.errors import CheckpointCorrupt
from rlhf_cluster.learner.rank import LearnerRank
from rlhf_cluster.learner.settings import LearnerSettings, OptimizerSettings
from rlhf_cluster.learner.spec import LearnerSpec
from rlhf_cluster.learner.state import STATE_FILE, generators_file, generators_now, restore_generators
from rlhf_cluster.models.settings import LoraSettings
from rlhf_cluster.records import Batch
from rlhf_cluster.testing import make_group, save_tiny_model
from rlhf_cluster.weights.memory import MemoryTransport

LORA = LoraSettings(rank=4, dropout=0.1)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def model_path(tmp_path_factory):
    return save_tiny_model(tmp_path_factory.mktemp("tiny"))


def open_rank(model_path, *, rank: int = 0, num_ranks: int = 1, **settings) -> LearnerRank:
    spec = LearnerSpec(
        settings=LearnerSettings(**{"precision": "fp32", "optimizer": OptimizerSettings(lr=1e-3)} | settings),
        model_path=model_path,
        temperature=1.0,
        num_steps=10,
        seed=0,
        serving_dtype="bfloat16",
        probe_token_ids=np.arange(2, 14, dtype=np.int32),
        probe_tolerance=1e-3,
    )
    return LearnerRank(spec, rank=rank, num_ranks=num_ranks, transport=MemoryTransport())


def batch(step: int) -> Batch:
    return Batch(step=step, groups=tuple(make_group([5, 9, 3], request_id=step * 2 + n) for n in range(2)))


def draws() -> tuple[float, float, float]:
    """The next number of each generator of this process."""
    return torch.rand(()).item(), random.random(), float(np.random.normal())


def weights(rank: LearnerRank) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in rank.network.language_model.named_parameters()}


@pytest.mark.parametrize(
    "settings",
    [{}, {"train_last_layers": 1}, {"lora": LORA}, {"lora": LORA, "precision": "bf16"}],
    ids=["all", "last layer", "adapters", "adapters in bf16"],
)
def test_going_on_from_a_copy_equals_never_having_stopped_random_numbers_included(model_path, tmp_path, settings):
    unbroken = open_rank(model_path, **settings)
    unbroken.update(GRPO(), batch(0))
    draws()
    unbroken.snapshot(with_state=True).write(tmp_path)
    expected = [(unbroken.update(GRPO(), batch(step)).metrics["learner/loss"], draws()) for step in (1, 2)]
    resumed = open_rank(model_path, **settings)
    resumed.load(tmp_path)
    assert [(resumed.update(GRPO(), batch(step)).metrics["learner/loss"], draws()) for step in (1, 2)] == expected
    assert resumed.version == unbroken.version == 3
    held = weights(unbroken)
    assert all(torch.equal(tensor, held[name]) for name, tensor in weights(resumed).items())


def test_a_copy_does_not_change_when_training_goes_on(model_path, tmp_path):
    early, late = tmp_path / "early", tmp_path / "late"
    early.mkdir()
    late.mkdir()
    rank = open_rank(model_path)
    rank.update(GRPO(), batch(0))
    snapshot = rank.snapshot(with_state=True)
    snapshot.write(early)
    rank.update(GRPO(), batch(1))
    snapshot.write(late)
    for name in (STATE_FILE, "model.safetensors", generators_file(0)):
        assert (early / name).read_bytes() == (late / name).read_bytes(), name


def test_other_ranks_write_their_generators_alone(model_path, tmp_path):
    rank = open_rank(model_path)
    rank.rank = 1
    rank.snapshot(with_state=True).write(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == [generators_file(1)]


def test_a_rank_that_did_not_exist_then_keeps_the_generators_it_was_seeded_with(tmp_path):
    torch.manual_seed(7)
    before = generators_now(CPU)
    restore_generators(tmp_path, rank=3, device=CPU)
    assert torch.equal(generators_now(CPU)["torch"], before["torch"])


def test_a_policy_without_the_learners_state_is_refused(model_path, tmp_path):
    rank = open_rank(model_path)
    rank.snapshot(with_state=False).write(tmp_path)
    with pytest.raises(CheckpointCorrupt, match=f"{tmp_path} holds no {STATE_FILE}"):
        rank.load(tmp_path)


FULL_DISK = """
import resource, sys
from pathlib import Path
import torch
from rlhf_cluster.errors import StorageError
from rlhf_cluster.learner.state import Policy, Snapshot
from rlhf_cluster.models.load import load_causal_lm

model = Path(sys.argv[1])
network = load_causal_lm(model, dtype=torch.float32)
policy = Policy(weights=tuple(network.named_parameters()), config=network.config, source=model, dtype=torch.float32)
training = {"weights": torch.zeros(100_000)}
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
for policy, training in ((policy, None), (None, training)):
    try:
        Snapshot(rank=0, policy=policy, training=training, generators=None).write(Path(sys.argv[2]))
    except StorageError as error:
        print(error)
"""


def test_a_full_disk_is_told_with_the_directory_and_the_systems_words(model_path, tmp_path: Path):
    command = [sys.executable, "-c", FULL_DISK, str(model_path), str(tmp_path)]
    told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout.splitlines()
    assert len(told) == 2
    assert all(line.startswith(f"{tmp_path} could not be written: ") and "File too large" in line for line in told)
