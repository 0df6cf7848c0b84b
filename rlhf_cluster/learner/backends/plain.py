"""The plain backend: one rank that owns the whole network."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import torch

from rlhf_cluster.learner.optimizer import LR_SCALE

if TYPE_CHECKING:
    from rlhf_cluster.data.packing import Microbatch
    from rlhf_cluster.models.network import TrainedNetwork
    from rlhf_cluster.models.outputs import Outputs


class PlainBackend:
    def __init__(self, network: TrainedNetwork, optimizer: torch.optim.Optimizer) -> None:
        self.network = network
        self.optimizer = optimizer

    def forward(self, microbatch: Microbatch, *, want_entropy: bool = False) -> Outputs:
        return self.network(microbatch, want_entropy=want_entropy)

    def accumulate(self, *, last: bool) -> AbstractContextManager[None]:
        return nullcontext()

    def scale_gradients(self, factor: float) -> None:
        for parameter in self._parameters():
            if parameter.grad is not None:
                parameter.grad.mul_(factor)

    def step(self, *, lr: float, max_grad_norm: float) -> float:
        norm = float(torch.nn.utils.clip_grad_norm_(self._parameters(), max_grad_norm))
        if math.isfinite(norm):
            for group in self.optimizer.param_groups:
                group["lr"] = lr * group[LR_SCALE]
            self.optimizer.step()
        self.clear_gradients()
        return norm

    def _parameters(self) -> list[torch.Tensor]:
        return [p for group in self.optimizer.param_groups for p in group["params"]]

    def has_finite_gradients(self) -> bool:
        return all(bool(torch.isfinite(p.grad).all()) for p in self._parameters() if p.grad is not None)

    def clear_gradients(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)

    def named_weights(self) -> Iterator[tuple[str, torch.Tensor]]:
        yield from self.network.exported.named_parameters()

    def optimizer_state(self) -> dict[str, Any]:
        return self.optimizer.state_dict()

    def load_optimizer_state(self, state: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(state)
