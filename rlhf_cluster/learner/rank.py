"""One rank of the learner group: holds the policy, takes its share of every batch, steps the optimizer.

Consumes batches with advantages; produces step reports and, on rank 0, weight handles and checkpoints. All ranks get
the same call with the same batch and agree without talking on who computes what; they meet only in the gradient.
A step may begin before its batch is complete; it runs the same arithmetic then, microbatch by microbatch.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from rlhf_cluster.algorithms import Algorithm
from rlhf_cluster.data.packing import Microbatch
from rlhf_cluster.errors import ConfigError, StepRefused
from rlhf_cluster.learner.backends import open_backend
from rlhf_cluster.learner.begun import StepBegun
from rlhf_cluster.learner.columns import BatchColumns
from rlhf_cluster.learner.culprits import find_culprits, sentence
from rlhf_cluster.learner.layout import Layout
from rlhf_cluster.learner.minibatches import minibatches
from rlhf_cluster.learner.optimizer import build_optimizer, learning_rate
from rlhf_cluster.learner.predictions import Predictions, assess, predict, weighted
from rlhf_cluster.learner.publisher import open_publisher
from rlhf_cluster.learner.spec import LearnerSpec
from rlhf_cluster.learner.state import (
    Adapter,
    Policy,
    Snapshot,
    copied,
    copy_weights,
    generators_now,
    read_training,
    restore_generators,
)
from rlhf_cluster.learner.totals import Totals
from rlhf_cluster.models import lora
from rlhf_cluster.models.lora import MergedWeights
from rlhf_cluster.models.network import Trained, open_network
from rlhf_cluster.models.outputs import Outputs
from rlhf_cluster.records import Batch, RolloutGroup, StepReport, WeightHandle
from rlhf_cluster.weights.flat import DTYPES

if TYPE_CHECKING:
    from rlhf_cluster.roles import WeightTransport


class LearnerRank:
    """Blocking and single-threaded; `LearnerRole` puts it behind the async protocol."""

    def __init__(self, spec: LearnerSpec, *, rank: int, num_ranks: int, transport: WeightTransport) -> None:
        self.spec = spec
        self.rank = rank
        self.num_ranks = num_ranks
        self.version = 0
        self.tokens_total = 0
        """Completion tokens trained on; grows with every microbatch, so that a hang shows."""
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        torch.manual_seed(spec.seed)
        settings = spec.settings
        critic = settings.critic
        self.network = open_network(
            spec.model,
            spec.model_path,
            temperature=spec.temperature,
            logit_chunk_rows=settings.logit_chunk_rows,
            critic_path=None if critic.trunk == "shared" else spec.critic_path or spec.model_path,
            trained=Trained(
                lora=settings.lora,
                last_layers=settings.train_last_layers,
                frozen_dtype=DTYPES[settings.dtype],
                gradient_checkpointing=settings.gradient_checkpointing,
            ),
        )
        self.network.to(self.device)
        optimizer = build_optimizer(self.network, settings.optimizer, critic_lr=critic.lr)
        self.backend = open_backend(settings.backend, self.network, optimizer)
        self.publisher = open_publisher(spec, network=self.network, transport=transport, device=self.device)
        self._layout = Layout(settings=settings, rank=rank, num_ranks=num_ranks, reads_last=self.network.reads_last)
        self._begun: StepBegun | None = None

    def accumulate(self, algorithm: Algorithm, groups: Sequence[RolloutGroup], *, step: int) -> None:
        """Take the credited `groups`, the first of the batch of `step` and all known so far, into the gradient, as far
        as they fill microbatches. `update` goes on from there; nothing that is said here can change its result."""
        started = time.perf_counter()
        begun = self._begin(algorithm, groups, step=step)
        self._learn(begun, is_whole=False)
        begun.early_s += time.perf_counter() - started
        self._begun = begun

    def update(self, algorithm: Algorithm, batch: Batch) -> StepReport:
        """One optimizer step over the batch, or one for each of its minibatches and epochs. Raises `StepRefused` when
        loss or gradient is not finite; then nothing of that minibatch was applied and the version stays."""
        started = time.perf_counter()
        tokens_before = self._begun.tokens_before if self._begun else self.tokens_total
        early_s = self._begun.early_s if self._begun else 0.0
        lr = learning_rate(self.spec.settings.optimizer, step=batch.step, num_steps=self.spec.num_steps)
        old_logprobs = None if algorithm.updates == (1, 1) else self._predict(batch.groups).logprobs
        applied = [
            self._apply(algorithm, minibatch, step=batch.step, lr=lr, old_logprobs=old)
            for minibatch, old in minibatches(algorithm, batch, old_logprobs=old_logprobs, seed=self.spec.seed)
        ]
        self.version += 1
        self.tokens_total = tokens_before + batch.num_tokens  # the other ranks' share too
        update_s = time.perf_counter() - started
        metrics = {name: float(np.mean([each[name] for each in applied])) for name in applied[0]}
        metrics |= {
            "learner/lr": lr,
            "learner/update_s": update_s,
            "learner/tokens_per_s": batch.num_tokens * algorithm.updates[0] / (early_s + update_s),
        }
        return StepReport(step=batch.step, version=self.version, metrics=metrics)

    def _apply(
        self,
        algorithm: Algorithm,
        groups: Sequence[RolloutGroup],
        *,
        step: int,
        lr: float,
        old_logprobs: Sequence[np.ndarray] | None,
    ) -> dict[str, float]:
        """One update of the optimizer. Returns its figures, `learner/...`."""
        begun = self._begin(algorithm, groups, step=step, old_logprobs=old_logprobs)
        early_tokens = begun.num_tokens
        self._learn(begun, is_whole=True)
        normaliser = algorithm.normaliser(groups)
        metrics = begun.totals.reduced(
            self.num_ranks,
            num_tokens=sum(group.num_trained_tokens for group in groups),
            num_groups=len(groups),
            normaliser=normaliser,
        )
        if not np.isfinite(metrics["learner/loss"]):
            raise self._refused(begun, f"the loss is {metrics['learner/loss']}")
        # Backends average gradients over ranks; the normaliser is of the whole batch.
        self.backend.scale_gradients(self.num_ranks / normaliser)
        grad_norm = self.backend.step(lr=lr, max_grad_norm=self.spec.settings.optimizer.max_grad_norm)
        if not np.isfinite(grad_norm):
            raise self._refused(begun, f"the gradient norm is {grad_norm}")
        return metrics | {
            "learner/grad_norm": grad_norm,
            "learner/early_share": early_tokens / max(begun.num_tokens, 1),
        }

    def _refused(self, begun: StepBegun, why: str) -> StepRefused:
        """The error for a step that is not applied. All ranks together."""
        culprits = find_culprits(begun, forward=self._forward, backend=self.backend, layout=self._layout)
        return StepRefused(
            f"step {begun.step}: {why}; the step was not applied. {sentence(culprits, num_groups=len(begun.groups))}",
            request_ids=[culprit.request_id for culprit in culprits],
        )

    def _begin(
        self,
        algorithm: Algorithm,
        groups: Sequence[RolloutGroup],
        *,
        step: int,
        old_logprobs: Sequence[np.ndarray] | None = None,
    ) -> StepBegun:
        """The update as far as it was learned; anew where that was another one or of other groups. It is taken out, so
        that an error on the way leaves nothing to go on from."""
        columns = BatchColumns.of(algorithm, groups, device=self.device, old_logprobs=old_logprobs)
        begun, self._begun = self._begun, None
        if begun is None or not begun.is_head_of(groups, columns, algorithm=algorithm, step=step):
            self.backend.clear_gradients()
            totals = Totals(device=self.device)
            return StepBegun(
                step=step,
                algorithm=algorithm,
                groups=groups,
                columns=columns,
                totals=totals,
                tokens_before=self.tokens_total,
            )
        begun.extend(groups, columns)
        return begun

    def _learn(self, begun: StepBegun, *, is_whole: bool) -> None:
        """The microbatches that are not yet in the gradient: all, or those that further groups cannot change."""
        left = self._layout.microbatches(
            begun.groups,
            whole_groups=begun.algorithm.whole_groups,
            is_whole=is_whole,
            after=begun.num_microbatches,
        )
        for microbatch, is_last in left:
            with self.backend.accumulate(last=is_last):
                self._forward_backward(begun, microbatch)
            begun.num_microbatches += 1
            begun.num_tokens += len(microbatch.origin_N)
            self.tokens_total += len(microbatch.origin_N)

    def _forward_backward(self, begun: StepBegun, microbatch: Microbatch) -> None:
        outputs = self._forward(microbatch, want_entropy=begun.algorithm.wants_entropy)
        parts = begun.algorithm.loss(begun.columns.tensors_of(microbatch, outputs))
        loss = weighted(parts, begun.columns, microbatch)
        loss.backward()
        begun.totals.add(loss.detach(), parts, outputs)

    def _forward(self, microbatch: Microbatch, *, want_entropy: bool = False) -> Outputs:
        # Entered for each forward: autocast keeps its bf16 copies of the weights until the outermost region ends, and
        # copies from before an optimizer step would be stale.
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.spec.settings.dtype == "bfloat16"):
            return self.backend.forward(microbatch, want_entropy=want_entropy)

    def _predict(self, groups: Sequence[RolloutGroup]) -> Predictions:
        return predict(groups, forward=self._forward, layout=self._layout, device=self.device)

    def score(self, groups: Sequence[RolloutGroup]) -> tuple[RolloutGroup, ...]:
        """With `values` where there is a critic, or with `rewards` where a reward model is trained. All ranks together;
        each gets the whole."""
        found = self._predict(groups)
        if found.scores is not None:
            return tuple(replace(group, rewards=each) for group, each in zip(groups, found.scores, strict=True))
        if found.values is None:
            raise ConfigError("this learner trains a policy alone: it has neither values nor scores to tell")
        return tuple(replace(group, values=each) for group, each in zip(groups, found.values, strict=True))

    def assess(self, algorithm: Algorithm, groups: Sequence[RolloutGroup]) -> dict[str, float]:
        """Loss and figures over credited groups that are not learned from, `learner/...`. All ranks together."""
        return assess(algorithm, groups, forward=self._forward, layout=self._layout, device=self.device)

    def publish(self) -> WeightHandle | None:
        """Merge adapters, flatten, hash and hand the weights to the transport. None on all ranks but 0, which only take
        part."""
        weights = self.backend.named_weights()
        if self.rank != 0:
            for _ in weights:
                pass
            return None
        merged = MergedWeights(weights, config=lora.config_of(self.network.exported))
        return self.publisher.publish(merged, version=self.version, shapes=merged.shapes)

    def publish_full(self) -> WeightHandle:
        """The version last published, whole; may run while another thread updates. Rank 0 alone."""
        return self.publisher.publish_full()

    def snapshot(self, *, with_state: bool) -> Snapshot:
        """A copy of this rank as it is now, whose `write` may run while another thread updates. `with_state` copies
        what is needed to go on training too; of a policy with adapters it then leaves the merged model out, unless this
        is the end of the training and `learner.lora.export` wants it."""
        weights = list(self.backend.named_weights())
        generators = generators_now(self.device) if with_state else None
        if self.rank != 0:
            return Snapshot(rank=self.rank, policy=None, training=None, generators=generators)
        copies = copy_weights(weights)
        trained = {name for name, tensor in weights if tensor.requires_grad}
        trained_copies = tuple((name, copy) for name, copy in copies if name in trained)
        policy = self._policy(copies, trained_copies, is_whole=not with_state or self._exports_whole)
        if not with_state:
            return Snapshot(rank=0, policy=policy, training=None, generators=None)
        training = {
            "version": self.version,
            "weights": dict(trained_copies),
            "beside": {name: copied(each) for name, each in self.network.beside() if each.requires_grad},
            "optimizer": copied(self.backend.optimizer_state()),
        }
        return Snapshot(rank=0, policy=policy, training=training, generators=generators)

    @property
    def _exports_whole(self) -> bool:
        settings = self.spec.settings.lora
        return settings is None or (settings.export == "merged" and self.version >= self.spec.num_steps)

    def _policy(
        self,
        weights: tuple[tuple[str, torch.Tensor], ...],
        trained: tuple[tuple[str, torch.Tensor], ...],
        *,
        is_whole: bool,
    ) -> Policy:
        adapter_config = lora.config_of(self.network.exported)
        return Policy(
            weights=MergedWeights(weights, config=adapter_config) if is_whole else None,
            adapter=None if adapter_config is None else Adapter(config=adapter_config, weights=trained),
            config=self.network.exported.config,
            source=self.spec.model_path,
            dtype=DTYPES[self.spec.serving_dtype],
        )

    def load(self, path: Path) -> None:
        """Be as at the time of `snapshot(with_state=True)`: weights at full precision, optimizer, version, random
        generators. Raises `CheckpointCorrupt` where `path` holds only a policy."""
        state = read_training(path, device=self.device)
        self._begun = None
        with torch.no_grad():
            for kept, parameters in (
                (state["weights"], self.network.exported.named_parameters()),
                (state["beside"], self.network.beside()),
            ):
                for name, parameter in parameters:
                    if parameter.requires_grad:
                        parameter.copy_(kept[name])
        self.backend.load_optimizer_state(state["optimizer"])
        self.version = state["version"]
        restore_generators(path, rank=self.rank, device=self.device)
