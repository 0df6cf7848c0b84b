"""The reference scorer: log-probabilities of completions under a frozen policy, batched like a training pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from rlhf_cluster.compute_thread import ComputeThread
from rlhf_cluster.data.packing import build_microbatch, by_group, rows_of
from rlhf_cluster.data.plan import plan_microbatches
from rlhf_cluster.models.load import load_causal_lm
from rlhf_cluster.models.policy import PolicyNetwork
from rlhf_cluster.records import RolloutGroup, WorkerStatus
from rlhf_cluster.reference.settings import ReferenceSettings
from rlhf_cluster.weights.flat import DTYPES

MAX_ROW_TOKENS = 1024


class ReferenceScorer:
    """Implements `roles.ReferenceScorer`. Work runs in one thread, so `status` answers meanwhile."""

    def __init__(self, settings: ReferenceSettings, *, model_path: Path, temperature: float, worker_id: str) -> None:
        self.settings = settings
        self.model_path = model_path
        self.temperature = temperature
        self.tokens_total = 0
        self._network: PolicyNetwork | None = None
        self._thread = ComputeThread(worker_id, role="reference scorer")

    async def start(self) -> None:
        await self._thread.run("loading the model", self._open)

    def _open(self) -> None:
        torch.set_num_threads(self.settings.threads)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        language_model = (
            load_causal_lm(self.model_path, dtype=DTYPES[self.settings.dtype]).to(device).requires_grad_(False)
        )
        self._network = PolicyNetwork(language_model, temperature=self.temperature)

    async def logprobs(self, groups: Sequence[RolloutGroup]) -> tuple[RolloutGroup, ...]:
        return await self._thread.run(f"scoring {len(groups)} groups", self._score, groups)

    @torch.no_grad()
    def _score(self, groups: Sequence[RolloutGroup]) -> tuple[RolloutGroup, ...]:
        assert self._network is not None, "start() comes first"
        logprobs_N = np.zeros(sum(group.num_trained_tokens for group in groups), np.float32)
        rows = rows_of(groups, share_prompt=True, max_row_tokens=MAX_ROW_TOKENS)
        [planned] = plan_microbatches(rows, num_ranks=1, budget_tokens=self.settings.microbatch_tokens)
        for members in planned:
            microbatch = build_microbatch(groups, members)
            logprobs_N[microbatch.origin_N] = self._network(microbatch).logprobs_N.cpu().numpy()
        self.tokens_total += len(logprobs_N)
        parts = zip(groups, by_group(groups, logprobs_N), strict=True)
        return tuple(replace(group, reference_logprobs=part) for group, part in parts)

    async def status(self) -> WorkerStatus:
        return self._thread.status(ready=self._network is not None, tokens_total=self.tokens_total)

    async def close(self) -> None:
        await self._thread.close(None if self._network is None else self._free)

    def _free(self) -> None:
        self._network = None
