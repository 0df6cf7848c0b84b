"""The DDP backend: every rank holds the whole network; gradients are averaged while the backward pass runs."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

import torch
from torch.nn.parallel import DistributedDataParallel

from rlhf_cluster.learner.backends.plain import PlainBackend

if TYPE_CHECKING:
    from rlhf_cluster.data.packing import Microbatch
    from rlhf_cluster.models.network import TrainedNetwork
    from rlhf_cluster.models.outputs import Outputs


class DdpBackend(PlainBackend):
    """Differs from plain only in the wrapper: clipping and the optimizer see identical gradients on every rank."""

    def __init__(self, network: TrainedNetwork, optimizer: torch.optim.Optimizer) -> None:
        super().__init__(network, optimizer)
        self.replicated = DistributedDataParallel(network, broadcast_buffers=False)

    def forward(self, microbatch: Microbatch, *, want_entropy: bool = False) -> Outputs:
        return self.replicated(microbatch, want_entropy=want_entropy)

    def accumulate(self, *, last: bool) -> AbstractContextManager[None]:
        return nullcontext() if last else self.replicated.no_sync()
