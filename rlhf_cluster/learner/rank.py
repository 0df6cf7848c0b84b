"""One rank of the learner group: holds the policy, takes its share of every batch, steps the optimizer.

Consumes batches with advantages; produces step reports and, on rank 0, weight handles and checkpoints. All ranks get
the same call with the same batch and agree without talking on who computes what; they meet only in the gradient.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import distributed

from rlhf_cluster.algorithms import Algorithm
from rlhf_cluster.data.packing import Microbatch, build_microbatch, plan_microbatches, rows_of
from rlhf_cluster.errors import LearnerError
from rlhf_cluster.learner.backends import open_backend
from rlhf_cluster.learner.columns import BatchColumns
from rlhf_cluster.learner.optimizer import build_optimizer, freeze_lower_layers, learning_rate
from rlhf_cluster.learner.publisher import open_publisher
from rlhf_cluster.learner.spec import LearnerSpec
from rlhf_cluster.learner.state import (
    Policy,
    Snapshot,
    copied,
    copy_weights,
    generators_now,
    read_training,
    restore_generators,
)
from rlhf_cluster.learner.totals import Totals
from rlhf_cluster.models.load import load_causal_lm
from rlhf_cluster.models.policy import PolicyNetwork
from rlhf_cluster.records import Batch, StepReport, WeightHandle
from rlhf_cluster.weights.flat import DTYPES

if TYPE_CHECKING:
    from rlhf_cluster.roles import WeightTransport


class LearnerRank:
    """Blocking and single-threaded; `LearnerRole` puts it behind the async protocol."""

    def __init__(self, spec: LearnerSpec, *, rank: int, num_ranks: int, transport: WeightTransport) -> None:
        self.spec = spec
        self.rank = rank
        self.num_ranks = num_ranks
        self.transport = transport
        self.version = 0
        self.tokens_total = 0
        """Completion tokens trained on; grows with every microbatch, so that a hang shows."""
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        torch.manual_seed(spec.seed)
        settings = spec.settings
        language_model = load_causal_lm(spec.model_path, dtype=torch.float32)
        freeze_lower_layers(
            language_model, train_last_layers=settings.train_last_layers, frozen_dtype=self._compute_dtype
        )
        if settings.gradient_checkpointing:
            language_model.gradient_checkpointing_enable({"use_reentrant": False})
            language_model.train()
        self.network = PolicyNetwork(
            language_model.to(self.device), temperature=spec.temperature, logit_chunk_rows=settings.logit_chunk_rows
        )
        self.backend = open_backend(settings.backend, self.network, build_optimizer(self.network, settings.optimizer))
        self.publisher = open_publisher(spec, network=self.network, transport=transport, device=self.device)

    @property
    def _compute_dtype(self) -> torch.dtype:
        return torch.bfloat16 if self.spec.settings.precision == "bf16" else torch.float32

    def update(self, algorithm: Algorithm, batch: Batch) -> StepReport:
        """One optimizer step over the batch. Raises `LearnerError` when loss or gradient is not finite; then nothing
        was applied and the version stays."""
        started, tokens_before = time.perf_counter(), self.tokens_total
        settings = self.spec.settings
        columns = BatchColumns.of(algorithm, batch, device=self.device)
        microbatches = self._share_of(batch)
        totals = Totals(num_tokens=batch.num_tokens, device=self.device)
        for number, microbatch in enumerate(microbatches, start=1):
            with self.backend.accumulate(last=number == len(microbatches)):
                self._forward_backward(algorithm, microbatch, columns, totals)
            self.tokens_total += len(microbatch.origin_N)
        lr = learning_rate(settings.optimizer, step=batch.step, num_steps=self.spec.num_steps)
        metrics = totals.reduced(self.num_ranks)
        if not np.isfinite(metrics["learner/loss"]):
            self.backend.clear_gradients()
            raise LearnerError(f"step {batch.step}: the loss is {metrics['learner/loss']}; the step was not applied")
        grad_norm = self.backend.step(lr=lr, max_grad_norm=settings.optimizer.max_grad_norm)
        if not np.isfinite(grad_norm):
            raise LearnerError(f"step {batch.step}: the gradient norm is {grad_norm}; the step was not applied")
        self.version += 1
        self.tokens_total = tokens_before + batch.num_tokens  # the other ranks' share too
        update_s = time.perf_counter() - started
        metrics |= {
            "learner/grad_norm": grad_norm,
            "learner/lr": lr,
            "learner/update_s": update_s,
            "learner/tokens_per_s": batch.num_tokens / update_s,
        }
        return StepReport(step=batch.step, version=self.version, metrics=metrics)

    def _share_of(self, batch: Batch) -> list[Microbatch]:
        settings = self.spec.settings
        rows = rows_of(batch.groups, share_prompt=settings.packing == "prefix", max_row_tokens=settings.max_row_tokens)
        planned = plan_microbatches(rows, num_ranks=self.num_ranks, budget_tokens=settings.microbatch_tokens)
        return [build_microbatch(batch.groups, members) for members in planned[self.rank]]

    def _forward_backward(
        self, algorithm: Algorithm, microbatch: Microbatch, columns: BatchColumns, totals: Totals
    ) -> None:
        logprobs_N = self._logprobs(microbatch)
        weights_N = columns.weights_of(microbatch)
        token_loss = algorithm.loss(columns.tensors_of(microbatch, logprobs_N))
        loss = (weights_N * token_loss.loss_N).sum()
        # Backends average gradients over ranks; the weights already normalise over the whole batch.
        (loss * self.num_ranks).backward()
        totals.add(loss.detach(), logprobs_N.detach(), token_loss.metrics)

    def _logprobs(self, microbatch: Microbatch) -> torch.Tensor:
        # Entered for each forward: autocast keeps its bf16 copies of the weights until the outermost region ends, and
        # copies from before an optimizer step would be stale.
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.spec.settings.precision == "bf16"):
            return self.backend.forward(microbatch)

    def publish(self) -> WeightHandle | None:
        """Flatten, hash and hand the weights to the transport. None on all ranks but 0, which only take part."""
        weights = self.backend.named_weights()
        if self.rank != 0:
            for _ in weights:
                pass
            return None
        return self.publisher.publish(weights, version=self.version)

    def publish_full(self) -> WeightHandle:
        """The version last published, whole; may run while another thread updates. Rank 0 alone."""
        return self.publisher.publish_full()

    def snapshot(self, *, with_state: bool) -> Snapshot:
        """A copy of this rank as it is now, whose `write` may run while another thread updates. `with_state` copies
        what is needed to go on training too."""
        weights = list(self.backend.named_weights())
        if self.rank != 0:
            generators = generators_now(self.device) if with_state else None
            return Snapshot(rank=self.rank, policy=None, training=None, generators=generators)
        policy = Policy(
            weights=copy_weights(weights),
            config=self.network.language_model.config,
            source=self.spec.model_path,
            dtype=DTYPES[self.spec.serving_dtype],
        )
        if not with_state:
            return Snapshot(rank=0, policy=policy, training=None, generators=None)
        trained = {name for name, tensor in weights if tensor.requires_grad}
        training = {
            "version": self.version,
            "weights": {name: copy for name, copy in policy.weights if name in trained},
            "optimizer": copied(self.backend.optimizer_state()),
        }
        return Snapshot(rank=0, policy=policy, training=training, generators=generators_now(self.device))

    def load(self, path: Path) -> None:
        """Be as at the time of `snapshot(with_state=True)`: weights at full precision, optimizer, version, random
        generators. Raises `CheckpointCorrupt` where `path` holds only a policy."""
        state = read_training(path, device=self.device)
        with torch.no_grad():
            for name, parameter in self.network.language_model.named_parameters():
                if parameter.requires_grad:
                    parameter.copy_(state["weights"][name])
        self.backend.load_optimizer_state(state["optimizer"])
        self.version = state["version"]
        restore_generators(path, rank=self.rank, device=self.device)

    def close(self) -> None:
        self.transport.close()
        # With one rank there is no group of ours; in the local runtime the one there is belongs to vLLM.
        if self.num_ranks > 1:
            distributed.destroy_process_group()
