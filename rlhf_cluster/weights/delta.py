"""Where two versions differ, as few bytes: exact, and only as long as the differences.

One optimizer step changes few of the 16-bit numbers that are served, the smaller the learning rate the fewer. A delta
holds, for the tensors that changed: how many items changed in each block of 256, where in the block each lies (one
byte), and its new value. That is 3 bytes a changed bfloat16 and two a block, 0.4 % of it. Items are compared and copied
as integers, so -0.0 and every pattern of NaN arrive as they are.

Layout, little-endian: header, ranges int64 [R, 2], counts uint16 [blocks], offsets uint8 [C], values [C]. The header
says R, C and how long the version is; its digest covers all that follows the digest.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xxhash

from rlhf_cluster.errors import FingerprintMismatch

MAGIC = b"rlhfdlt1"
BLOCK = 256
MAX_SHARE = 0.5
"""Of a version's bytes; a longer delta saves too little for the work it makes."""
_SEAL = struct.Struct("<8sQ")
_SIZES = struct.Struct("<4Q")
_HEADER_BYTES = _SEAL.size + _SIZES.size

Range = tuple[int, int]
"""First byte and number of bytes."""


def encode(
    previous: np.ndarray, current: np.ndarray, *, item_bytes: int, ranges: Sequence[Range] | None = None
) -> np.ndarray | None:
    """What turns uint8 [n] `previous` into `current`: uint8 [num_bytes], or None where it would be more than half of n.

    `ranges`: where to look, non-overlapping and of whole items of `item_bytes` (1, 2, 4 or 8); elsewhere both must be
    equal. None looks everywhere.
    """
    assert previous.nbytes == current.nbytes, "versions of one model are equally long"
    ranges = [(0, current.nbytes)] if ranges is None else ranges
    room = int(current.nbytes * MAX_SHARE) - _HEADER_BYTES - 16 * len(ranges)
    item = np.dtype(f"<u{item_bytes}")
    counts, offsets, values = [], [], []
    for first, num_bytes in ranges:
        before, after = (_items(buffer, item, first, num_bytes) for buffer in (previous, current))
        changed = np.flatnonzero(before != after)
        num_blocks = _num_blocks(len(after))
        room -= len(changed) * (1 + item_bytes) + 2 * num_blocks
        if room < 0:
            return None
        counts.append(np.bincount(changed // BLOCK, minlength=num_blocks).astype("<u2"))
        offsets.append((changed % BLOCK).astype(np.uint8))
        values.append(after[changed])
    sizes = np.frombuffer(_SIZES.pack(current.nbytes, item_bytes, len(ranges), sum(map(len, values))), np.uint8)
    columns = [np.array(ranges, "<i8").reshape(-1), *counts, *offsets, *values]
    delta = np.concatenate([np.zeros(_SEAL.size, np.uint8), sizes, *(column.view(np.uint8) for column in columns)])
    seal = _SEAL.pack(MAGIC, xxhash.xxh3_64_intdigest(delta[_SEAL.size :].data))
    delta[: _SEAL.size] = np.frombuffer(seal, np.uint8)
    return delta


def apply(base: np.ndarray, delta: np.ndarray) -> np.ndarray:
    """The version that `delta` was made for, as new uint8 [n]. Raises `FingerprintMismatch` for a damaged delta."""
    patched = np.array(base)
    apply_in_place(patched, delta)
    return patched


def apply_in_place(buffer: np.ndarray, delta: np.ndarray) -> None:
    """Turn uint8 [n] `buffer` into the version that `delta` was made for.

    Raises `FingerprintMismatch`, and leaves `buffer` as it was, for a damaged delta or one of another length. Whether
    `buffer` was the right version to begin with only the digests of the result can tell.
    """
    columns = _parse(delta)
    if buffer.nbytes != columns.num_bytes:
        raise FingerprintMismatch(f"a delta for {columns.num_bytes} bytes was offered to a version of {buffer.nbytes}")
    counts, offsets, values = columns.counts, columns.offsets, columns.values
    for first, num_bytes in columns.ranges:
        items = _items(buffer, values.dtype, first, num_bytes)
        num_blocks = _num_blocks(len(items))
        num_changed = int(counts[:num_blocks].sum(dtype=np.int64))
        block_starts = np.arange(num_blocks, dtype=np.int64) * BLOCK
        items[np.repeat(block_starts, counts[:num_blocks]) + offsets[:num_changed]] = values[:num_changed]
        counts, offsets, values = counts[num_blocks:], offsets[num_changed:], values[num_changed:]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Columns:
    num_bytes: int
    ranges: list[Range]
    counts: np.ndarray
    offsets: np.ndarray
    values: np.ndarray


def _parse(delta: np.ndarray) -> _Columns:
    raw = np.ascontiguousarray(delta).view(np.uint8)
    if raw.nbytes < _HEADER_BYTES:
        raise FingerprintMismatch(f"a delta of {raw.nbytes} bytes is shorter than its header")
    magic, digest = _SEAL.unpack_from(raw.data)
    if magic != MAGIC or xxhash.xxh3_64_intdigest(raw[_SEAL.size :].data) != digest:
        raise FingerprintMismatch(f"the delta that arrived ({raw.nbytes} bytes) is not the one that was published")
    num_bytes, item_bytes, num_ranges, num_changed = _SIZES.unpack_from(raw.data, _SEAL.size)
    item = np.dtype(f"<u{item_bytes}")
    ranges_end = _HEADER_BYTES + 16 * num_ranges
    ranges = [(int(first), int(size)) for first, size in raw[_HEADER_BYTES:ranges_end].view("<i8").reshape(-1, 2)]
    counts_end = ranges_end + 2 * sum(_num_blocks(size // item_bytes) for _, size in ranges)
    offsets_end = counts_end + num_changed
    return _Columns(
        num_bytes=num_bytes,
        ranges=ranges,
        counts=raw[ranges_end:counts_end].view("<u2"),
        offsets=raw[counts_end:offsets_end],
        # The values begin at any byte: a view of unaligned memory, which numpy reads in copies.
        values=np.frombuffer(raw.data, item, count=num_changed, offset=offsets_end),
    )


def _items(buffer: np.ndarray, item: np.dtype, first: int, num_bytes: int) -> np.ndarray:
    return buffer[first : first + num_bytes].view(item)


def _num_blocks(num_items: int) -> int:
    return -(-num_items // BLOCK)
