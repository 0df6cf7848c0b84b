"""What a rollout engine must do; the worker drives it from one thread, so engines need no locks.

Token ids in; token ids, sampled-token log-probabilities, finish reasons and weight versions out, a group at a time.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Protocol

import numpy as np

from rlhf_cluster.records import RolloutGroup, RolloutRequest

if TYPE_CHECKING:
    import torch


class Engine(Protocol):
    max_context: int
    """Prompt plus completion tokens that a sequence may have."""
    dtype: str | None
    """In which weights must arrive, as in `TensorSpec`; None where any will do."""

    def expected_shapes(self) -> Mapping[str, tuple[int, ...]] | None:
        """Shapes of all parameters under their Hugging Face names; None where any weights will do."""
        ...

    def submit(self, request: RolloutRequest) -> None:
        """Queue a request. Raises `PromptTooLong` when the prompt leaves no room for one new token.

        Completions that were `begun` keep their tokens; unfinished ones go on, with random numbers not yet used.
        """
        ...

    def step(self) -> list[RolloutGroup]:
        """Advance all running requests a little; return the groups that finished, all their completions together.

        `worker_id` of the groups is left empty; the worker fills it in.
        """
        ...

    def num_in_flight(self) -> int:
        """Requests submitted and not yet returned."""
        ...

    def tokens_generated(self) -> int:
        """By this engine since it was opened, those of unfinished and of aborted completions included; never falls."""
        ...

    def tokens_in_flight(self) -> int:
        """Those of them that belong to requests in flight."""
        ...

    def abort(self, request_ids: Collection[int]) -> None:
        """Forget these requests; ids that are not in flight are passed over."""
        ...

    def abort_all(self) -> None:
        """Forget every request in flight."""
        ...

    def hand_over(self) -> list[RolloutGroup]:
        """Stop every request in flight and return each as far as it got, its `begun` tokens included.

        Completions that were cut short, or not started, have the reason `unfinished`.
        """
        ...

    def names_to_load(self, changed: Collection[str]) -> Collection[str]:
        """All tensors that `load_weights` must be given so that these change and no other does; at least `changed`."""
        ...

    def load_weights(self, version: int, tensors: Iterable[tuple[str, torch.Tensor]]) -> None:
        """Replace these weights, drop every cached key and value, and stamp tokens sampled from now on with `version`.

        Weights that are not among them stay; the first time, and after a failure, all of them must be given.
        """
        ...

    def held_digests(self) -> Mapping[str, str]:
        """xxh3-64 digests of those tensors whose bytes can be read back, under their Hugging Face names."""
        ...

    def probe(self, token_ids: np.ndarray) -> np.ndarray:
        """Teacher-forced log-probabilities, temperature 1: int32 [T] -> float32 [T-1]. Called between steps; must not
        disturb running requests. An engine without logits returns an empty array, and `held_digests` must then cover
        every tensor."""
        ...

    def close(self) -> None: ...
