"""The contract of weight transports, in memory and by file; the object store's is tested on a real Ray."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from rlhf_cluster.errors import FingerprintMismatch, WeightsUnavailable
from rlhf_cluster.records import LogitProbe, WeightHandle
from rlhf_cluster.weights import flat
from rlhf_cluster.weights.filesystem import FilesystemTransport
from rlhf_cluster.weights.memory import MemoryTransport

PROBE = LogitProbe(token_ids=np.zeros(1, np.int32), logprobs=np.zeros(0, np.float32), tolerance=1e-3)


@pytest.fixture(params=["memory", "filesystem"])
def transport(request, tmp_path):
    return MemoryTransport() if request.param == "memory" else FilesystemTransport(tmp_path / "weights")


@pytest.fixture
def by_file(tmp_path):
    return FilesystemTransport(tmp_path / "weights")


def publish(transport, version: int, *, author: tuple[int, int] = (0, 0)) -> WeightHandle:
    manifest, buffer = flat.flatten([("w", torch.full((100,), float(version)))], version=version, dtype=torch.float32)
    return WeightHandle(manifest=manifest, location=transport.publish(manifest, buffer, author=author), probe=PROBE)


def test_what_is_fetched_is_what_was_published(transport):
    handle = publish(transport, 3)
    buffer = transport.fetch(handle)
    assert (buffer.dtype, buffer.nbytes) == (np.uint8, handle.manifest.num_bytes)
    flat.verify(handle.manifest, buffer)


def test_what_is_fetched_cannot_be_written_to(transport):
    buffer = transport.fetch(publish(transport, 3))
    assert not buffer.flags.writeable


def test_fetching_twice_maps_the_same_bytes(transport):
    handle = publish(transport, 1)
    assert np.array_equal(transport.fetch(handle), transport.fetch(handle))


def test_the_version_before_stays_until_the_next_publish(transport):
    first, second = publish(transport, 1), publish(transport, 2)
    for handle in (first, second):
        flat.verify(handle.manifest, transport.fetch(handle))


def test_a_reader_keeps_what_it_mapped_when_the_version_goes(transport):
    handle = publish(transport, 1)
    buffer = transport.fetch(handle)
    for version in (2, 3, 4):
        publish(transport, version)
    flat.verify(handle.manifest, buffer)


def test_a_place_that_this_transport_does_not_know_is_unavailable(transport):
    handle = replace(publish(transport, 5), location="/nowhere/version-5")
    with pytest.raises(WeightsUnavailable, match="weights version 5"):
        transport.fetch(handle)


def test_closing_twice_is_fine(transport):
    publish(transport, 1)
    transport.close()
    transport.close()


def test_a_reader_in_another_process_gets_it_by_a_copy_of_the_transport(by_file):
    reader = pickle.loads(pickle.dumps(by_file))
    handle = pickle.loads(pickle.dumps(publish(by_file, 1)))
    flat.verify(handle.manifest, reader.fetch(handle))


def test_files_of_older_versions_are_removed_and_fetching_one_says_so(by_file):
    handles = [publish(by_file, version) for version in (1, 2, 3)]
    assert [path.name for path in sorted(by_file.directory.iterdir())] == [
        "version-00000002-by-0-0.weights", "version-00000003-by-0-0.weights",
    ]  # fmt: skip
    with pytest.raises(WeightsUnavailable, match="weights version 1 at"):
        by_file.fetch(handles[0])


def test_a_delta_lives_as_long_as_the_version_it_makes(by_file):
    handles = [publish(by_file, version) for version in (1, 2)]
    changes = np.arange(5, dtype=np.uint8)
    location = by_file.publish(handles[1].manifest, changes, is_delta=True)
    publish(by_file, 3)
    np.testing.assert_array_equal(by_file.fetch(replace(handles[1], location=location)), changes)
    flat.verify(handles[1].manifest, by_file.fetch(handles[1]))
    publish(by_file, 4)
    for gone in (handles[1], replace(handles[1], location=location)):
        with pytest.raises(WeightsUnavailable):
            by_file.fetch(gone)


def test_a_learner_that_was_replaced_cannot_overwrite_or_remove_its_successors_versions(by_file):
    zombie = FilesystemTransport(by_file.directory)
    manifest, buffer = flat.flatten([("w", torch.ones(100))], version=4, dtype=torch.float32)
    handle = WeightHandle(manifest=manifest, location=by_file.publish(manifest, buffer, author=(1, 1)), probe=PROBE)
    for version in (4, 5, 6, 7):
        publish(zombie, version)
    zombie.close()
    flat.verify(manifest, by_file.fetch(handle))


def test_what_a_killed_learner_left_behind_goes_when_its_successor_publishes(by_file):
    killed = FilesystemTransport(by_file.directory)
    for version in (1, 2):
        publish(killed, version, author=(1, 0))
    (by_file.directory / "version-00000003-by-1-0.weights.partial").write_bytes(b"torn")
    publish(by_file, 2, author=(1, 1))
    assert [path.name for path in by_file.directory.iterdir()] == ["version-00000002-by-1-1.weights"]


def test_publishing_a_version_again_after_a_resume_replaces_it(by_file):
    publish(by_file, 1)
    again = publish(by_file, 1)
    flat.verify(again.manifest, by_file.fetch(again))
    assert len(list(by_file.directory.iterdir())) == 1


@pytest.mark.parametrize("size", [0, 100])
def test_a_truncated_file_is_never_taken_for_weights(by_file, size):
    handle = publish(by_file, 1)
    with Path(handle.location).open("r+b") as file:
        file.truncate(size)
    with pytest.raises((WeightsUnavailable, FingerprintMismatch), match="weights version 1"):
        flat.verify(handle.manifest, by_file.fetch(handle))


def test_closing_removes_only_what_this_side_published(by_file):
    handle = publish(by_file, 1)
    pickle.loads(pickle.dumps(FilesystemTransport(by_file.directory))).close()
    by_file.fetch(handle)
    by_file.close()
    assert list(by_file.directory.iterdir()) == []
