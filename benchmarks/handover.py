"""What it costs to hand a weight version from the learner to a vLLM worker: whole, reloaded in part, or as a delta.

After each optimizer step on random groups the same version is handed over in all three ways through files, as learner
and worker on one node would. `whole` reloads every tensor, `part` the ones that changed, `delta` sends only what
changed as well. CPU-seconds, median over the versions: `publish` (cast, digest, probe; encode; store), `fetch` (map, or
apply the delta; verify every digest), `pause` (reload, digests read back, probe: the worker generates nothing
meanwhile; its wall time is beside it). Below the table stands one plain copy of the bytes.

    python benchmarks/handover.py --model DIR --steps 5
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from measure import Arguments, parse_arguments, pin_environment, tree_cpu_s

CASES = [(1e-6, None), (1e-5, None), (1e-5, 10), (1e-4, 10)]
"""(learning rate, decoder layers trained from the top)."""
WAYS = ("whole", "part", "delta")
PHASES = ("publish", "fetch", "pause")
MIB = 2**20


class Way:
    """One way of handing over: its publisher, what the worker holds by it, and what each version has cost."""

    def __init__(self, name: str, learner, *, directory: Path) -> None:
        import torch

        from rlhf_cluster.learner.publisher import PolicyProbe, Publisher
        from rlhf_cluster.weights.filesystem import FilesystemTransport

        self.name = name
        self.transport = FilesystemTransport(directory / name)
        self.publisher = Publisher(
            self.transport,
            probe=PolicyProbe(learner.network, spec=learner.spec, device=learner.device),
            dtype=torch.bfloat16,
            full_every=1000 if name == "delta" else 1,
        )
        self.base: Any = None
        self.proven: Any = None
        self.costs: list[dict[str, float]] = []

    def hand_over(self, learner, engine) -> None:
        """One version through all phases."""
        from rlhf_cluster.rollout import proof

        marks = [tree_cpu_s()]
        handle = self.publisher.publish(learner.backend.named_weights(), version=learner.version)
        marks.append(tree_cpu_s())
        received = proof.fetch_verified(self.transport, handle, self.base)
        marks.append(tree_cpu_s())
        started = time.perf_counter()
        proof.load_and_prove(engine, handle, received.buffer, proven=None if self.name == "whole" else self.proven)
        pause_s = time.perf_counter() - started
        marks.append(tree_cpu_s())
        self.base, self.proven = received if handle.deltas_follow else None, handle.manifest
        num_bytes = handle.manifest.num_bytes if handle.delta is None else handle.delta.num_bytes
        phases = dict(zip(PHASES, np.diff(marks).tolist(), strict=True))
        self.costs.append({"mib": num_bytes / MIB, **phases, "sum": marks[-1] - marks[0], "pause_s": pause_s})

    def row(self) -> str:
        """Medians. The first version is whole in any way, the second is a warm-up."""
        medians = {name: statistics.median(cost[name] for cost in self.costs[2:]) for name in self.costs[0]}
        return f"{self.name:5} {medians.pop('mib'):7.1f} " + " ".join(f"{median:8.3f}" for median in medians.values())


def open_learner(model: Path, *, lr: float, train_last_layers: int | None):
    from rlhf_cluster.learner.rank import LearnerRank
    from rlhf_cluster.learner.settings import LearnerSettings, OptimizerSettings
    from rlhf_cluster.learner.spec import LearnerSpec
    from rlhf_cluster.weights.memory import MemoryTransport

    spec = LearnerSpec(
        settings=LearnerSettings(
            precision="bf16", train_last_layers=train_last_layers, optimizer=OptimizerSettings(lr=lr)
        ),
        model_path=model,
        temperature=1.0,
        num_steps=1000,
        seed=0,
        serving_dtype="bfloat16",
        probe_token_ids=np.arange(100, 116, dtype=np.int32),
        probe_tolerance=1.0,
    )
    return LearnerRank(spec, rank=0, num_ranks=1, transport=MemoryTransport())


def compare(engine, learner, *, num_steps: int, directory: Path) -> list[Way]:
    """Train on random groups and hand every version over in every way."""
    from rlhf_cluster.algorithms import GRPO
    from rlhf_cluster.records import Batch
    from rlhf_cluster.testing import make_group

    ways = [Way(name, learner, directory=directory) for name in WAYS]
    vocab_size = learner.network.language_model.config.vocab_size
    for step in range(num_steps + 2):
        groups = tuple(make_group((24,) * 4, request_id=n, vocab_size=vocab_size, seed=step) for n in range(2))
        learner.update(GRPO(), Batch(step=step, groups=groups))
        first = step % len(ways)  # Who goes first finds cold caches, so all take turns.
        for way in ways[first:] + ways[:first]:
            way.hand_over(learner, engine)
    for way in ways:
        way.transport.close()
    return ways


def run(arguments: Arguments) -> None:
    from rlhf_cluster.rollout.engines.vllm import VllmEngine

    engine = VllmEngine(dtype="bfloat16").open(arguments.model)
    print("     lr layers way       MiB  publish    fetch    pause      sum  pause, s")
    mib = 0.0
    for lr, train_last_layers in CASES:
        learner = open_learner(arguments.model, lr=lr, train_last_layers=train_last_layers)
        with tempfile.TemporaryDirectory() as directory:
            for way in compare(engine, learner, num_steps=arguments.num_steps, directory=Path(directory)):
                print(f"{lr:7.0e} {train_last_layers or 'all':>6} {way.row()}", flush=True)
                mib = max(mib, way.costs[-1]["mib"])
    buffer = np.ones(int(mib * MIB), np.uint8)
    started = tree_cpu_s()
    buffer.copy()
    print(f"one copy of {mib:.0f} MiB: {tree_cpu_s() - started:.3f} CPU-s")
    engine.close()


def main() -> None:
    arguments = parse_arguments(__doc__, variants=("files",))
    pin_environment()
    run(arguments)


if __name__ == "__main__":
    main()
