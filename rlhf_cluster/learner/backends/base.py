"""What a learner backend decides: how the network is replicated or sharded. Everything else is the rank's.

A backend wraps a network whose weights are already identical on all ranks, averages gradients over ranks, and can
iterate full weights in one order on every rank. FSDP2 and DeepSpeed fit behind the same methods.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import torch

    from rlhf_cluster.data.packing import Microbatch
    from rlhf_cluster.models.outputs import Outputs


class Backend(Protocol):
    def forward(self, microbatch: Microbatch, *, want_entropy: bool = False) -> Outputs:
        """What the network says of the microbatch, with a graph."""
        ...

    def accumulate(self, *, last: bool) -> AbstractContextManager[None]:
        """Around forward and backward of one microbatch; gradients are exchanged only in the last one of a step."""
        ...

    def scale_gradients(self, factor: float) -> None:
        """Multiply what was accumulated, once, before `step`."""
        ...

    def step(self, *, lr: float, max_grad_norm: float) -> float:
        """Clip, apply the optimizer and clear gradients. Returns the norm before clipping; when that is not finite,
        nothing is applied."""
        ...

    def has_finite_gradients(self) -> bool:
        """Of what this rank has accumulated."""
        ...

    def clear_gradients(self) -> None:
        """Forget what was accumulated: the step is not to be applied."""
        ...

    def named_weights(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Full tensors of what is exported, those of adapters too, under their names in the network, tied ones once; a
        collective: all ranks iterate together."""
        ...

    def optimizer_state(self) -> dict[str, Any]: ...

    def load_optimizer_state(self, state: dict[str, Any]) -> None: ...
