"""What the reference said of recorded rows, kept beside the ledger: a row is scored once in a job, whoever drives it.

The last digits of a log-probability depend on the rows that were scored together with it. So a resumed job does not
score again what a former driver has scored: the batches that a row comes in later are the same to the bit.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from rlhf_cluster.driver.ledger.append_log import AppendLog, frames

PATTERN = "reference-[0-9]*.log"


class ReferenceLog:
    """Each driver writes a file of its own, `reference-<epoch>.log`, and reads those of all before it."""

    def __init__(self, directory: Path, *, epoch: int) -> None:
        """Raises `LedgerCorrupt` or `StorageError`."""
        self._by_row: dict[str, np.ndarray] = {}
        self._log = AppendLog(directory / f"reference-{epoch:06d}.log")
        for path in sorted(directory.glob(PATTERN)):
            for _, payload in frames(path.read_bytes()):
                self._by_row |= _decoded(payload)

    def get(self, row: str) -> np.ndarray | None:
        """float32 [N]."""
        return self._by_row.get(row)

    def keep(self, scored: Mapping[str, np.ndarray]) -> None:
        """By row. When this returns they are on the disk, all or, after a crash, none."""
        if scored:
            self._by_row |= scored
            self._log.append(_encoded(scored))
            self._log.commit()

    def close(self) -> None:
        self._log.close()


def _encoded(scored: Mapping[str, np.ndarray]) -> bytes:
    """One line of JSON with the length of each row, then all values in a row."""
    header = json.dumps({row: len(values) for row, values in scored.items()}).encode()
    return header + b"\n" + np.concatenate(list(scored.values())).astype("<f4").tobytes()


def _decoded(payload: bytes) -> dict[str, np.ndarray]:
    header, _, content = payload.partition(b"\n")
    lengths: dict[str, int] = json.loads(header)
    values = np.frombuffer(content, "<f4").astype(np.float32)
    return dict(zip(lengths, np.split(values, np.cumsum(list(lengths.values()))[:-1]), strict=True))
