"""What a rank has to remember to go on training: a copy of it, its files, and the way back.

The copy is taken between two steps, in memory; the files are written while the next step runs. Rank 0 writes what all
ranks hold alike, every rank writes its own random generators.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError

from rlhf_cluster.errors import CheckpointCorrupt, StorageError
from rlhf_cluster.models.adapter_files import FOLDER
from rlhf_cluster.models.export import export_policy
from rlhf_cluster.models.lora import write_adapter

STATE_FILE = "learner_state.pt"


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """What peft loads."""

    config: Any
    """`peft.LoraConfig`."""
    weights: tuple[tuple[str, torch.Tensor], ...]
    """The trained parameters, under the names that they have in the network; on the CPU and nobody else's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What `transformers` and vLLM load."""

    weights: Iterable[tuple[str, torch.Tensor]] | None
    """Hugging Face names; on the CPU and nobody else's, except frozen ones, which never change. Adapters are merged in
    as it is iterated. None where the adapters are enough."""
    adapter: Adapter | None = None
    """None where the weights themselves are trained."""
    config: Any
    """`transformers.PretrainedConfig`."""
    source: Path
    """The model that training began with; its tokenizer goes along."""
    dtype: torch.dtype


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """One rank as it was at one moment; later steps do not change it."""

    rank: int
    policy: Policy | None
    """None on all ranks but 0."""
    training: dict[str, Any] | None
    """Version, trained weights at full precision and optimizer; None on all ranks but 0, or when not asked for."""
    generators: dict[str, Any] | None
    """See `generators_now`; None when not asked for."""

    def write(self, directory: Path) -> None:
        """Fill the existing `directory` with this rank's files. Raises `StorageError` when it cannot be written."""
        try:
            if self.policy is not None:
                policy = self.policy
                export_policy(
                    policy.weights, config=policy.config, source=policy.source, target=directory, dtype=policy.dtype
                )
                if policy.adapter is not None:
                    write_adapter(directory / FOLDER, policy.adapter.weights, config=policy.adapter.config)
            if self.training is not None:
                _write(self.training, directory / STATE_FILE)
            if self.generators is not None:
                _write(self.generators, directory / generators_file(self.rank))
        except (OSError, RuntimeError, SafetensorError) as error:
            raise StorageError(f"{directory} could not be written: {_reason(error)}") from error


def copy_weights(weights: Iterable[tuple[str, torch.Tensor]]) -> tuple[tuple[str, torch.Tensor], ...]:
    """On the CPU. Frozen weights are not copied: nobody changes them."""
    return tuple((name, tensor if not tensor.requires_grad else copied(tensor)) for name, tensor in weights)


def copied(value: Any) -> Any:
    """`value` with every tensor in it copied to the CPU; for the nested state of an optimizer."""
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {key: copied(item) for key, item in value.items()}
    if isinstance(value, list):
        return [copied(item) for item in value]
    return value


def generators_now(device: torch.device) -> dict[str, Any]:
    """The state of every random generator of this process, in types that `torch.load` reads without running code."""
    numpy_state: Any = np.random.get_state(legacy=True)
    kind, keys, position, has_gauss, gauss = numpy_state
    states: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "python": random.getstate(),
        "numpy": (kind, keys.tolist(), int(position), int(has_gauss), float(gauss)),
    }
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def restore_generators(path: Path, *, rank: int, device: torch.device) -> None:
    """A rank that has no file, as the group had fewer ranks then, keeps the generators it was seeded with."""
    file = path / generators_file(rank)
    if not file.is_file():
        return
    states = torch.load(file, weights_only=True, map_location="cpu")
    torch.set_rng_state(states["torch"])
    random.setstate(states["python"])
    np.random.set_state(states["numpy"])
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)


def read_training(path: Path, *, device: torch.device) -> dict[str, Any]:
    """`Snapshot.training` as it was written. Raises `CheckpointCorrupt` where there is none."""
    if not (path / STATE_FILE).is_file():
        raise CheckpointCorrupt(f"{path} holds no {STATE_FILE}: a learner cannot go on from a policy alone")
    return torch.load(path / STATE_FILE, weights_only=True, map_location=device)


def generators_file(rank: int) -> str:
    return f"generators_rank-{rank}.pt"


def _write(state: dict[str, Any], file: Path) -> None:
    # A file of Python's: torch's own reports a full disk as a position that it did not expect.
    with file.open("wb") as stream:
        torch.save(state, stream)


def _reason(error: Exception) -> str:
    first = error if isinstance(error, OSError) else error.__context__
    return str(first.strerror or first) if isinstance(first, OSError) else str(error)
