"""The publisher: whole versions, deltas between them, and the newest version whole for who asks."""

from __future__ import annotations

import threading
from itertools import pairwise

import numpy as np
import pytest
import torch

from rlhf_cluster.errors import WeightsUnavailable
from rlhf_cluster.learner.publisher import Publisher
from rlhf_cluster.records import LogitProbe, WeightHandle
from rlhf_cluster.rollout import proof
from rlhf_cluster.weights import flat
from rlhf_cluster.weights.filesystem import FilesystemTransport
from rlhf_cluster.weights.memory import MemoryTransport


def no_probe(manifest, buffer) -> LogitProbe:
    return LogitProbe(token_ids=np.zeros(1, np.int32), logprobs=np.zeros(0, np.float32), tolerance=1e-3)


class Bench:
    """A model of two tensors whose numbers change a few at a time, and a publisher of it."""

    def __init__(self, transport=None, **options) -> None:
        self.weights = {"frozen": torch.randn(3000), "trained": torch.randn(300, 33)}
        self.transport = transport or MemoryTransport()
        self.publisher = Publisher(self.transport, probe=no_probe, dtype=torch.bfloat16, **options)
        self.version = 0

    def publish(self, *, num_changed: int = 40) -> WeightHandle:
        self.version += 1
        self.weights["trained"].view(-1)[torch.randperm(9900)[:num_changed]] += 1.0
        return self.publisher.publish(self.weights.items(), version=self.version)

    def whole(self) -> np.ndarray:
        return flat.flatten(self.weights.items(), version=self.version, dtype=torch.bfloat16)[1]


def test_every_version_is_whole_and_none_is_kept_when_no_deltas_are_made():
    bench = Bench()
    for _ in range(3):
        handle = bench.publish()
        assert (handle.delta, handle.deltas_follow) == (None, False)
        np.testing.assert_array_equal(bench.transport.fetch(handle), bench.whole())


def test_every_third_version_is_whole_and_those_between_are_deltas_on_the_one_before():
    bench = Bench(full_every=3)
    handles = [bench.publish() for _ in range(7)]
    assert [handle.location is not None for handle in handles] == [True, False, False] * 2 + [True]
    assert handles[0].delta is None
    for before, handle in pairwise(handles):
        assert (handle.delta.base_version, handle.delta.base_fingerprint) == (
            before.version,
            before.manifest.fingerprint,
        )
        assert handle.delta.num_bytes < handle.manifest.num_bytes / 10
        assert handle.deltas_follow


def test_a_chain_of_deltas_gives_the_bytes_of_every_version_published_whole():
    bench = Bench(full_every=4)
    base = None
    for _ in range(10):
        handle = bench.publish()
        base = proof.fetch_verified(bench.transport, handle, base)
        np.testing.assert_array_equal(base.buffer, bench.whole())


def test_a_version_in_which_most_has_changed_goes_out_whole():
    bench = Bench(full_every=100)
    bench.publish()
    bench.weights["frozen"] += 1.0
    handle = bench.publish(num_changed=9900)
    assert handle.delta is None
    np.testing.assert_array_equal(bench.transport.fetch(handle), bench.whole())
    assert bench.publish().location is None


def test_a_version_that_changes_nothing_is_an_empty_delta():
    bench = Bench(full_every=100)
    base = proof.fetch_verified(bench.transport, bench.publish())
    handle = bench.publish(num_changed=0)
    assert handle.delta.num_bytes < 100
    np.testing.assert_array_equal(proof.fetch_verified(bench.transport, handle, base).buffer, bench.whole())


def test_the_newest_version_is_had_whole_and_stored_only_once(tmp_path):
    bench = Bench(FilesystemTransport(tmp_path), full_every=100)
    bench.publish()
    handle = bench.publish()
    assert handle.location is None
    whole = bench.publisher.publish_full()
    assert (whole.manifest, whole.delta) == (handle.manifest, handle.delta)
    np.testing.assert_array_equal(bench.transport.fetch(whole), bench.whole())
    assert bench.publisher.publish_full() is whole
    assert len(list(tmp_path.iterdir())) == 3


def test_a_version_that_is_whole_already_is_not_stored_again():
    bench = Bench()
    handle = bench.publish()
    assert bench.publisher.publish_full() is handle


def test_before_the_first_version_there_is_none_to_have():
    with pytest.raises(WeightsUnavailable, match="no weight version was published yet"):
        Bench().publisher.publish_full()


def test_asking_for_whole_versions_while_others_are_published_gives_true_ones():
    bench = Bench(full_every=100)
    bench.publish()
    whole: list[WeightHandle] = []
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            whole.append(bench.publisher.publish_full())

    asking = threading.Thread(target=ask)
    asking.start()
    for _ in range(20):
        bench.publish()
    stop.set()
    asking.join(10)
    for handle in {handle.version: handle for handle in whole}.values():
        flat.verify(handle.manifest, bench.transport.fetch(handle))


def test_handles_and_files_carry_their_author(tmp_path):
    bench = Bench(FilesystemTransport(tmp_path), author=(2, 5), full_every=2)
    assert [bench.publish().author for _ in range(2)] == [(2, 5)] * 2
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "version-00000001-by-2-5.weights",
        "version-00000002-by-2-5.delta",
    ]
