"""Hands weight versions to the workers: flattens, hashes, probes, and sends whole versions or what changed in them.

Consumes the learner's named weights; produces handles. With `full_every` K > 1 every K-th version goes out whole and
those between as deltas on the one before; whoever cannot apply one asks for the newest version whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np
import torch

from rlhf_cluster.data.packing import Microbatch, build_microbatch, rows_of
from rlhf_cluster.errors import WeightsUnavailable
from rlhf_cluster.learner.spec import LearnerSpec
from rlhf_cluster.records import LogitProbe, Prompt, RolloutGroup, WeightDelta, WeightHandle, WeightManifest
from rlhf_cluster.weights import delta
from rlhf_cluster.weights.flat import DTYPES, changed_ranges, flatten, unflatten

if TYPE_CHECKING:
    from rlhf_cluster.models.network import TrainedNetwork
    from rlhf_cluster.roles import WeightTransport

Probe = Callable[[WeightManifest, np.ndarray], LogitProbe]


class Publisher:
    """Rank 0's. `publish` runs in the thread that computes, `publish_full` in any other, at the same time too."""

    def __init__(
        self,
        transport: WeightTransport,
        *,
        probe: Probe,
        dtype: torch.dtype,
        full_every: int = 1,
        author: tuple[int, int] = (0, 0),
    ) -> None:
        """`full_every` 1 sends every version whole; K > 1 keeps a copy of the newest version to make deltas of."""
        self._transport = transport
        self._probe = probe
        self._dtype = dtype
        self._full_every = full_every
        self._author = author
        self._num_since_full = 0
        self._newest: tuple[WeightHandle, np.ndarray | None] | None = None
        """What was published last, its bytes only where deltas are made."""
        self._putting = Lock()
        """Held while the transport stores something and while `_newest` changes hands."""

    def publish(
        self,
        weights: Iterable[tuple[str, torch.Tensor]],
        *,
        version: int,
        shapes: Sequence[torch.Size] | None = None,
    ) -> WeightHandle:
        """Flatten, hash, probe and hand to the transport, whole or as a delta. `shapes` as `flatten` takes them."""
        manifest, buffer = flatten(weights, version=version, dtype=self._dtype, shapes=shapes)
        probe = self._probe(manifest, buffer)
        changes = self._changes(manifest, buffer)
        handle = WeightHandle(
            manifest=manifest,
            location=None,
            probe=probe,
            deltas_follow=self._full_every > 1,
            author=self._author,
        )
        with self._putting:
            if changes is not None:
                handle = replace(handle, delta=self._put_delta(manifest, changes))
            if changes is None or self._num_since_full + 1 >= self._full_every:
                handle = replace(handle, location=self._transport.publish(manifest, buffer, author=self._author))
            self._num_since_full = 0 if handle.location is not None else self._num_since_full + 1
            self._newest = handle, buffer if self._full_every > 1 else None
        return handle

    def publish_full(self) -> WeightHandle:
        """The version last published, whole. Raises `WeightsUnavailable` before the first."""
        with self._putting:
            if self._newest is None:
                raise WeightsUnavailable("no weight version was published yet: call publish first")
            handle, buffer = self._newest
            if handle.location is None:
                assert buffer is not None, "what went out as a delta is kept"
                handle = replace(handle, location=self._transport.publish(handle.manifest, buffer, author=self._author))
                self._newest = handle, buffer
            return handle

    def _changes(self, manifest: WeightManifest, buffer: np.ndarray) -> np.ndarray | None:
        """The delta from the version before; None where a whole version is the better or the only way."""
        if self._full_every == 1 or self._newest is None:
            return None
        before, previous = self._newest
        assert previous is not None, "deltas are made from what was kept"
        ranges = changed_ranges(before.manifest, manifest)
        if ranges is None:
            return None
        return delta.encode(previous, buffer, item_bytes=self._dtype.itemsize, ranges=ranges)

    def _put_delta(self, manifest: WeightManifest, changes: np.ndarray) -> WeightDelta:
        assert self._newest is not None, "a delta is made from what was published before"
        base = self._newest[0].manifest
        return WeightDelta(
            base_version=base.version,
            base_fingerprint=base.fingerprint,
            location=self._transport.publish(manifest, changes, author=self._author, is_delta=True),
            num_bytes=changes.nbytes,
        )


class PolicyProbe:
    """Computed from the published bytes themselves, in the dtype that engines serve: what they have to equal."""

    def __init__(self, network: TrainedNetwork, *, spec: LearnerSpec, device: torch.device) -> None:
        self._network = network.bare()
        self._spec = spec
        self._device = device

    @torch.no_grad()
    def __call__(self, manifest: WeightManifest, buffer: np.ndarray) -> LogitProbe:
        tokens = self._spec.probe_token_ids
        weights = {f"language_model.{name}": t.to(self._device) for name, t in unflatten(manifest, buffer)}
        outputs = torch.func.functional_call(self._network, weights, (_probe_microbatch(tokens),))
        logprobs = outputs.logprobs_N
        return LogitProbe(
            token_ids=tokens, logprobs=logprobs.float().cpu().numpy(), tolerance=self._spec.probe_tolerance
        )


def open_publisher(
    spec: LearnerSpec, *, network: TrainedNetwork, transport: WeightTransport, device: torch.device
) -> Publisher:
    """The publisher of a rank, as its spec says."""
    return Publisher(
        transport,
        probe=PolicyProbe(network, spec=spec, device=device),
        dtype=DTYPES[spec.serving_dtype],
        full_every=spec.full_every,
        author=spec.author,
    )


def _probe_microbatch(token_ids: np.ndarray) -> Microbatch:
    """The probe as a group whose prompt is its first token: every later token is predicted."""
    num_tokens = len(token_ids) - 1
    group = RolloutGroup(
        request_id=0,
        prompt=Prompt(prompt_id="probe", text="", token_ids=token_ids[:1]),
        worker_id="",
        lengths=np.array([num_tokens], np.int32),
        token_ids=token_ids[1:],
        logprobs=np.zeros(num_tokens, np.float32),
        versions=np.zeros(num_tokens, np.int32),
        finish_reasons=("length",),
    )
    return build_microbatch([group], rows_of([group], share_prompt=True, max_row_tokens=len(token_ids)))
