"""Learner backends: how the network is replicated or sharded."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from rlhf_cluster.learner.backends.base import Backend
    from rlhf_cluster.models.network import TrainedNetwork


def open_backend(name: str, network: TrainedNetwork, optimizer: torch.optim.Optimizer) -> Backend:
    """The backend that `learner.backend` names, around a network that is already the same on every rank."""
    if name == "plain":
        from rlhf_cluster.learner.backends.plain import PlainBackend

        return PlainBackend(network, optimizer)
    from rlhf_cluster.learner.backends.ddp import DdpBackend

    return DdpBackend(network, optimizer)
