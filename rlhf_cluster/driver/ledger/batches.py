"""Accepted batches, read back from the rollout log: for a replay, and for the audit that promises one."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from rlhf_cluster.driver.ledger.rollout_log import read_group
from rlhf_cluster.errors import LedgerCorrupt, StorageError
from rlhf_cluster.flow.history import History
from rlhf_cluster.records import RolloutGroup

Read = Callable[[tuple[int, int]], RolloutGroup]
"""From a place in the log to the group there."""


def accepted_groups(history: History, step: int, *, read: Read) -> tuple[RolloutGroup, ...]:
    """The batch of a step as it was accepted, without advantages. Raises `LedgerCorrupt` where it is damaged,
    `StorageError` where it is gone."""
    return tuple(_group(history, each, step, read) for each in history.steps[step].accepted.request_ids)


def unreadable(ledger_dir: Path, history: History) -> list[str]:
    """Steps that a replay may need and whose batches cannot be read, each in a sentence."""
    found = []
    for step in history.steps:
        try:
            accepted_groups(history, step, read=partial(read_group, ledger_dir))
        except StorageError as error:
            found.append(str(error))
    return found


def _group(history: History, request_id: int, step: int, read: Read) -> RolloutGroup:
    life = history.lives.get(request_id)
    if life is None or life.group is None:
        raise LedgerCorrupt(f"step {step} was accepted with request {request_id}, which never completed")
    try:
        found = read(life.group.place)
    except FileNotFoundError as error:
        raise StorageError(
            f"the groups of step {step} are gone: {error.filename} does not exist. "
            "Resume from a checkpoint of a later step, or restore the file"
        ) from error
    if found.request_id != request_id:
        raise LedgerCorrupt(f"step {step}: at {life.group.place} lies request {found.request_id}, not {request_id}")
    return found
