"""The ledger of a job: says what happened to every prompt, keeps the tokens that are not settled yet, survives kill -9.

    job_dir/ledger/entries-<epoch>.log      what happened, one small entry each
    job_dir/ledger/rollouts-<segment>.log   the completed groups themselves

Most writes wait in memory. `accept`, `saved` and `opened` return when all that came before is on the disk, groups
first, so no accepted batch is without its groups; and they refuse to write for a driver that has been replaced.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rlhf_cluster.driver.claim import Claim
from rlhf_cluster.driver.clock import Clock
from rlhf_cluster.driver.ledger.batches import accepted_groups
from rlhf_cluster.driver.ledger.entry_log import EntryLog, read_entries
from rlhf_cluster.driver.ledger.group_bytes import batch_digest
from rlhf_cluster.driver.ledger.rollout_log import RolloutLog
from rlhf_cluster.errors import LedgerCorrupt, StorageError
from rlhf_cluster.flow.history import COMPLETE, TRAINED, History
from rlhf_cluster.flow.settle import settle
from rlhf_cluster.records import Adopted, Batch, RolloutGroup, StepReport, WeightHandle
from rlhf_cluster.records.ledger import (
    Accepted,
    Completed,
    Dispatched,
    Dropped,
    Entry,
    Learned,
    Lost,
    Opened,
    Proved,
    Published,
    Saved,
)

DIRECTORY = "ledger"
LOSS = "learner/loss"


class Ledger:
    """`open` one, say every event as it happens, `close` it. `history` is always up to date."""

    def __init__(self, directory: Path, *, claim: Claim, clock: Clock) -> None:
        self._claim = claim
        self._clock = clock
        self._entries = EntryLog(directory, epoch=claim.epoch)
        self.history = History(self._entries.entries())
        groups = [life.group for life in self.history.lives.values() if life.group]
        self._rollouts = RolloutLog(directory, after=max((group.place[0] for group in groups), default=0))

    @classmethod
    def open(cls, job_dir: Path, *, claim: Claim, clock: Clock) -> Ledger:
        """Make or go on with the ledger of a job. A torn tail is cut off.

        Raises `LedgerCorrupt` for damage before the tail, `StorageError` when it cannot be written.
        """
        directory = job_dir / DIRECTORY
        claim.check()
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"{directory} cannot be made: {error.strerror}") from error
        return cls(directory, claim=claim, clock=clock)

    def opened(self, step: int, restarted: Sequence[int]) -> None:
        """This driver goes on at `step`; the lives of the `restarted` requests begin anew."""
        self._claim.check()
        self._say(Opened(step=step, restarted=_ids(restarted), **self._stamp()))
        self._commit()

    def dispatched(self, request_ids: Sequence[int], *, worker_id: str, version: int) -> None:
        self._say(Dispatched(request_ids=_ids(request_ids), worker_id=worker_id, version=version, **self._stamp()))

    def lost(self, request_ids: Sequence[int], *, worker_id: str, reason: str) -> None:
        self._say(Lost(request_ids=_ids(request_ids), worker_id=worker_id, reason=reason, **self._stamp()))

    def completed(self, group: RolloutGroup, *, workers: Sequence[str]) -> None:
        """Keep the group; `workers` are all that generated tokens of it."""
        place = self._rollouts.append(group)
        entry = Completed(
            request_id=group.request_id,
            prompt_id=group.prompt.prompt_id,
            workers=tuple(workers),
            versions=_versions(group),
            num_completions=group.num_completions,
            num_tokens=group.num_tokens,
            place=place,
            **self._stamp(),
        )
        self._say(entry)

    def dropped(self, request_id: int, *, prompt_id: str, reason: str) -> None:
        self._say(Dropped(request_id=request_id, prompt_id=prompt_id, reason=reason, **self._stamp()))

    def accept(self, batch: Batch) -> None:
        """When this returns, the credited `batch` will be trained on, whatever dies.

        Raises `Fenced`, and `StorageError` when the disk refuses; then the batch counts as not accepted.
        """
        self._claim.check()
        # Before the entry exists: a disk that has no room for the groups may still have some for the few bytes of it.
        self._rollouts.commit()
        entry = Accepted(
            step=batch.step,
            request_ids=tuple(group.request_id for group in batch.groups),
            staleness=batch.staleness(),
            digest=batch_digest(batch.groups),
            **self._stamp(),
        )
        self._say(entry)
        self._entries.commit()

    def learned(self, report: StepReport) -> None:
        loss = float(report.metrics.get(LOSS, float("nan"))).hex()
        self._say(Learned(step=report.step, version=report.version, loss=loss, **self._stamp()))

    def published(self, handle: WeightHandle) -> None:
        fingerprint = handle.manifest.fingerprint
        self._say(Published(version=handle.version, fingerprint=fingerprint, author=handle.author, **self._stamp()))

    def proved(self, adopted: Adopted) -> None:
        entry = Proved(
            worker_id=adopted.worker_id, version=adopted.version, fingerprint=adopted.fingerprint, **self._stamp()
        )
        self._say(entry)

    def saved(self, step: int, name: str) -> None:
        """A checkpoint is whole on the disk."""
        self._claim.check()
        self._say(Saved(step=step, name=name, **self._stamp()))
        self._commit()

    def digest(self, step: int) -> str:
        """Of the credited batch of an accepted step that is not settled; a replay must make the same."""
        return self._accepted(step).digest

    def groups(self, step: int) -> tuple[RolloutGroup, ...]:
        """The groups of an accepted batch as they completed, before any credit.

        Raises `StorageError` when the step was never accepted or its groups are gone, `LedgerCorrupt` when damaged.
        """
        self._accepted(step)
        return accepted_groups(self.history, step, read=self._rollouts.read)

    def group(self, request_id: int) -> RolloutGroup | None:
        """A completed group that is in no batch yet; None when there is none, or a crash tore it."""
        life = self.history.lives.get(request_id)
        if life is None or life.state != COMPLETE or life.group is None:
            return None
        try:
            found = self._rollouts.read(life.group.place)
        except (LedgerCorrupt, FileNotFoundError):
            return None
        return found if found.request_id == request_id else None

    def start_segment(self) -> None:
        """Let the groups so far be deleted as a whole, once nobody needs them; `forget_before` does it too."""
        self._rollouts.start_segment()

    def forget_before(self, step: int) -> None:
        """Fold all about steps before `step` into one entry, and delete the segments that no other request needs.

        `step` is that of the oldest checkpoint that a resume may begin from. Raises `Fenced`, `StorageError`.
        """
        self._claim.check()
        self.start_segment()
        kept = settle(self._entries.entries(), self.history, step=min(step, self.history.step))
        self._entries.rewrite(kept)
        self.history = History(kept)
        lives = [life for life in self.history.lives.values() if life.state in (COMPLETE, TRAINED)]
        self._rollouts.keep_only({life.group.place[0] for life in lives if life.group})

    def close(self) -> None:
        """Write what waits. Closing twice is fine."""
        try:
            self._rollouts.close()
        finally:
            self._entries.close()

    def _accepted(self, step: int) -> Accepted:
        if step not in self.history.steps:
            settled = "it is settled" if step < self.history.settled.step else "it was never accepted"
            raise StorageError(f"the ledger holds no batch of step {step}: {settled}")
        return self.history.steps[step].accepted

    def _stamp(self) -> dict[str, Any]:
        return {"epoch": self._claim.epoch, "time_s": self._clock.time()}

    def _say(self, entry: Entry) -> None:
        self._entries.append(entry)
        self.history.add(entry)

    def _commit(self) -> None:
        self._rollouts.commit()
        self._entries.commit()


def read_history(job_dir: Path) -> History:
    """What the ledger says of a job, running or not; nothing is written. Raises `StorageError`, `LedgerCorrupt`."""
    return History(read_entries(job_dir / DIRECTORY))


def _ids(request_ids: Iterable[int]) -> tuple[int, ...]:
    return tuple(int(each) for each in request_ids)


def _versions(group: RolloutGroup) -> tuple[int, ...]:
    return tuple(sorted(set(group.versions.tolist())))
