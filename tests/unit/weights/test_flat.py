"""A version survives the way through a buffer bit for bit, and any damage on that way is named."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlhf_cluster.errors import FingerprintMismatch, ManifestMismatch
from rlhf_cluster.weights import flat

SHAPES = {"embed": (7, 5), "norm": (5,), "head": (3, 5)}


def tensors(seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    return [(name, torch.randn(shape, generator=generator)) for name, shape in SHAPES.items()]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_tensors_come_back_as_they_were_cast(dtype):
    manifest, buffer = flat.flatten(tensors(), version=3, dtype=dtype)
    flat.verify(manifest, buffer)
    for (name, sent), (found_name, found) in zip(tensors(), flat.unflatten(manifest, buffer), strict=True):
        assert found_name == name
        assert torch.equal(found, sent.to(dtype))


def test_tensors_are_views_of_the_buffer_even_of_a_read_only_one():
    manifest, buffer = flat.flatten(tensors(), version=0, dtype=torch.float32)
    buffer.setflags(write=False)
    for spec, (_, tensor) in zip(manifest.tensors, flat.unflatten(manifest, buffer), strict=True):
        assert tensor.data_ptr() == buffer.ctypes.data + spec.offset


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_one_changed_byte_of_a_tensor_is_found(position, change):
    manifest, buffer = flat.flatten(tensors(), version=0, dtype=torch.float32)
    spec = manifest.tensors[position % len(manifest.tensors)]
    buffer[spec.offset + position % spec.num_bytes] ^= change
    with pytest.raises(FingerprintMismatch, match=f"{spec.name} arrived as"):
        flat.verify(manifest, buffer)


def test_a_truncated_buffer_is_refused():
    manifest, buffer = flat.flatten(tensors(), version=4, dtype=torch.float32)
    with pytest.raises(FingerprintMismatch, match=r"weights version 4: .* bytes arrived, the manifest says"):
        flat.verify(manifest, buffer[:-64])


def test_a_manifest_whose_fingerprint_is_another_ones_is_refused():
    manifest, buffer = flat.flatten(tensors(), version=0, dtype=torch.float32)
    with pytest.raises(FingerprintMismatch, match="its own fingerprint"):
        flat.verify(replace(manifest, fingerprint="0" * 32), buffer)


def test_fingerprint_depends_on_the_weights_and_not_on_version_or_order():
    one, _ = flat.flatten(tensors(), version=1, dtype=torch.float32)
    two, _ = flat.flatten(reversed(tensors()), version=2, dtype=torch.float32)
    other, _ = flat.flatten(tensors(seed=1), version=1, dtype=torch.float32)
    assert one.fingerprint == two.fingerprint != other.fingerprint


@pytest.mark.parametrize(
    ("expected", "message"),
    [
        ({**SHAPES, "bias": (5,)}, "lack bias"),
        ({**SHAPES, "norm": (6,)}, r"norm has shape \(5,\), this worker's model \(6,\)"),
        ({"embed": (7, 5), "norm": (5,)}, "have head, unknown"),
    ],
)
def test_a_model_of_other_names_or_shapes_is_refused(expected, message):
    manifest, _ = flat.flatten(tensors(), version=0, dtype=torch.float32)
    with pytest.raises(ManifestMismatch, match=message):
        flat.check_shapes(manifest, expected)


def test_tensor_digest_is_the_one_in_the_manifest():
    manifest, _ = flat.flatten(tensors(), version=0, dtype=torch.bfloat16)
    digests = {spec.name: spec.digest for spec in manifest.tensors}
    assert digests == {name: flat.tensor_digest(tensor.bfloat16()) for name, tensor in tensors()}


def test_manifest_survives_pickling():
    manifest, _ = flat.flatten(tensors(), version=0, dtype=torch.float32)
    assert pickle.loads(pickle.dumps(manifest)) == manifest


def test_empty_bytes_between_tensors_are_zero():
    manifest, buffer = flat.flatten(tensors(), version=0, dtype=torch.float32)
    covered = np.zeros(len(buffer), bool)
    for spec in manifest.tensors:
        covered[spec.offset : spec.offset + spec.num_bytes] = True
    assert not buffer[~covered].any()
