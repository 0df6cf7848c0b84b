"""What has happened to a job so far: the ledger's entries folded, one at a time. Sans IO.

    waiting -> out -> complete -> trained        the states of a request; an id the ledger has not seen has none
       ^-------'         '-> dropped             (`Lost` leads back; a restart leads back from all but trained)

Entries that cannot follow what came before are kept as violations of a check of `flow/audit.py`, never raised: the
audit tells them, and a driver can still resume.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from rlhf_cluster.flow.id_ranges import IdRanges
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
    Settled,
)

WAITING, OUT, COMPLETE, DROPPED, TRAINED = "waiting", "out", "complete", "dropped", "trained"

TRAINED_ONCE = "no prompt is trained on twice"
NOT_BOTH = "no prompt is both dropped and trained on"
LIVES = "every life is in order"
IN_ORDER = "steps and their prompts are in order"
ONE_FINGERPRINT = "each version has one fingerprint"
REPLAYS = "replayed losses are equal to the bit"
ONE_DRIVER = "one driver at a time"
VERIFIED = "every trained token is of a verified version"
LEARNED = "every accepted batch was learned"


@dataclass(slots=True)
class Life:
    """Where one request is. What completion found out is there once `group` is."""

    state: str = WAITING
    holders: frozenset[str] = frozenset()
    """Workers that have it now; more than one where a silent worker's requests were sent to others too."""
    version: int = -1
    """Served by the first worker it went to: no token of it is older, whoever took it over."""
    num_lost: int = 0
    group: Completed | None = None
    reason: str = ""
    """Why it was dropped."""
    step: int = -1
    """That trained on it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One accepted batch."""

    accepted: Accepted
    staleness: int
    """As the driver said or, where that is more, as the versions of the groups say."""
    learned: list[Learned] = field(default_factory=list)
    """The first, and one for every replay."""


class History:
    """`add` every entry in order, then ask."""

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        self.settled = Settled(epoch=0, time_s=0.0)
        self.lives: dict[int, Life] = {}
        """Of every request that is not settled, by id."""
        self.steps: dict[int, Step] = {}
        """Accepted batches that are not settled."""
        self.published: dict[int, str] = {}
        """Version -> fingerprint, the first one if there were several."""
        self.proved: dict[tuple[str, int], str] = {}
        """(worker id, version) -> fingerprint."""
        self.drivers: list[Opened] = []
        self.checkpoints: list[Saved] = []
        self.violations: list[tuple[str, str]] = []
        """(check, sentence), in the order found."""
        self.last_epoch = 0
        self.step = 0
        """Batches accepted, so the step that comes next."""
        self.covered = IdRanges()
        """Ids that are settled: trained on or dropped for good, their lives folded away."""
        self.quarantined: set[str] = set()
        """Prompt ids."""
        self._last_id = -1
        self._last_trained_id = -1
        self._dropped_lately: set[int] = set()
        self._folds: dict[type[Entry], Callable[..., None]] = {
            Accepted: self._accepted,
            Completed: self._completed,
            Dispatched: self._dispatched,
            Dropped: self._dropped,
            Learned: self._learned,
            Lost: self._lost,
            Opened: self._opened,
            Proved: self._proved,
            Published: self._published,
            Saved: self._saved,
            Settled: self._settled,
        }
        for entry in entries:
            self.add(entry)

    def add(self, entry: Entry) -> None:
        if not isinstance(entry, Settled):  # which stands before entries that are older than it
            if entry.epoch < self.last_epoch:
                self._violated(ONE_DRIVER, f"driver {entry.epoch} wrote after driver {self.last_epoch} had taken over")
            self.last_epoch = max(self.last_epoch, entry.epoch)
        self._folds[type(entry)](entry)

    @property
    def next_request_id(self) -> int:
        """One more than the highest id seen."""
        return self._last_id + 1

    @property
    def outstanding(self) -> tuple[int, ...]:
        """Requests neither trained on nor dropped, ascending; restarted ones that are still to go out too."""
        return tuple(sorted(each for each, life in self.lives.items() if life.state in (WAITING, OUT, COMPLETE)))

    @property
    def completed_unaccepted(self) -> tuple[int, ...]:
        """Those of the outstanding that are complete, ascending."""
        return tuple(sorted(each for each, life in self.lives.items() if life.state == COMPLETE))

    @property
    def dropped_since_last_accept(self) -> tuple[int, ...]:
        return tuple(sorted(self._dropped_lately))

    def unverified(self) -> dict[int, str]:
        """Of the requests trained on that are not settled, those with tokens that nobody vouches for, and why.

        Each version of a group must have been published, and proved with that fingerprint by a worker that generated
        tokens of the group.
        """
        trained = {each: life for each, life in self.lives.items() if life.state == TRAINED}
        return {each: why for each, life in trained.items() if (why := self._unverified(life))}

    def unlearned(self) -> list[int]:
        """Steps that are not settled whose batch was accepted and not learned."""
        return [number for number, step in self.steps.items() if not step.learned]

    def _unverified(self, life: Life) -> str:
        if life.group is None:
            return "nothing was generated for it"
        for version in life.group.versions:
            if version not in self.published:
                return f"version {version} was never published"
            proofs = [self.proved.get((worker_id, version)) for worker_id in life.group.workers]
            if self.published[version] not in proofs:
                return f"{' and '.join(life.group.workers)} never proved to hold version {version}"
        return ""

    def _settled(self, entry: Settled) -> None:
        self.settled = entry
        self.step = max(self.step, entry.step)
        self.covered = IdRanges(entry.request_ids)
        self._last_id = max([self._last_id, *(last for _, last in entry.request_ids)])
        self._last_trained_id = entry.last_trained_id
        self.published.update(entry.published)
        self.proved.update({(worker_id, version): print_ for worker_id, version, print_ in entry.proved})
        self.violations.extend(entry.violations)
        self.quarantined.update(entry.quarantined)

    def _opened(self, entry: Opened) -> None:
        self.drivers.append(entry)
        if entry.step >= self.settled.step and entry.step != self.step:
            self._violated(IN_ORDER, f"driver {entry.epoch} began at step {entry.step}, {self.step} were accepted")
        for request_id in entry.restarted:
            life = self.lives.get(request_id)
            final = life is not None and life.state == DROPPED and request_id not in self._dropped_lately
            if life is None or life.state == TRAINED or final:
                what = "settled or unknown" if life is None else "dropped for good" if final else life.state
                self._violated(LIVES, f"request {request_id} was restarted though it is {what}")
                continue
            self._dropped_lately.discard(request_id)
            self.lives[request_id] = Life(num_lost=life.num_lost)

    def _dispatched(self, entry: Dispatched) -> None:
        for request_id in entry.request_ids:
            self._last_id = max(self._last_id, request_id)
            if request_id in self.covered:
                self._violated(LIVES, f"request {request_id} went out again though it is settled")
                continue
            life = self.lives.setdefault(request_id, Life())
            self._expect(request_id, life, (WAITING, OUT), f"went to {entry.worker_id}")
            if entry.worker_id in life.holders:
                self._violated(LIVES, f"request {request_id} went to {entry.worker_id} twice")
            if life.state in (WAITING, OUT):
                life.state, life.holders = OUT, life.holders | {entry.worker_id}
                life.version = entry.version if life.version < 0 else life.version

    def _lost(self, entry: Lost) -> None:
        for request_id in entry.request_ids:
            life = self.lives.get(request_id)
            if life is None or life.state != OUT or entry.worker_id not in life.holders:
                self._violated(LIVES, f"request {request_id} was lost with {entry.worker_id} but was not out there")
            else:
                life.holders -= {entry.worker_id}
                life.state, life.num_lost = OUT if life.holders else WAITING, life.num_lost + 1

    def _completed(self, entry: Completed) -> None:
        life = self.lives.get(entry.request_id)
        if life is None:
            self._violated(LIVES, f"request {entry.request_id} completed but never went out, or is settled")
            return
        self._expect(entry.request_id, life, (OUT,), "completed")
        if life.state == OUT:
            life.state, life.group, life.holders = COMPLETE, entry, frozenset()

    def _dropped(self, entry: Dropped) -> None:
        """An unknown id is no violation: a prompt can be left out before it ever goes to a worker."""
        self._last_id = max(self._last_id, entry.request_id)
        life = self.lives.get(entry.request_id) or Life()
        if entry.request_id in self.covered or life.state == TRAINED:
            before = f"trained on in step {life.step}" if life.state == TRAINED else "settled"
            self._violated(NOT_BOTH, f"request {entry.request_id} was dropped ({entry.reason}) after it was {before}")
            return
        self._expect(entry.request_id, life, (WAITING, OUT, COMPLETE), "was dropped")
        life.state, life.reason = DROPPED, entry.reason
        if entry.reason == Dropped.QUARANTINED:
            self.quarantined.add(entry.prompt_id)
        self.lives[entry.request_id] = life
        self._dropped_lately.add(entry.request_id)

    def _accepted(self, entry: Accepted) -> None:
        if entry.step != self.step:
            self._violated(IN_ORDER, f"step {entry.step} was accepted when step {self.step} was due")
        for request_id in entry.request_ids:
            self._train(request_id, entry.step)
            if request_id <= self._last_trained_id:
                after = self._last_trained_id
                self._violated(IN_ORDER, f"request {request_id} was trained on in step {entry.step}, after {after}")
            self._last_trained_id = max(self._last_trained_id, request_id)
        self._dropped_lately.clear()
        self.steps.setdefault(entry.step, Step(accepted=entry, staleness=self._staleness(entry)))
        self.step = max(self.step, entry.step + 1)

    def _train(self, request_id: int, step: int) -> None:
        life = self.lives.get(request_id)
        if request_id in self.covered or (life is not None and life.state == TRAINED):
            before = "before the last checkpoint" if life is None else f"in step {life.step}"
            self._violated(TRAINED_ONCE, f"request {request_id} was trained on in step {step} and {before}")
        elif life is None:
            self._violated(LIVES, f"request {request_id} was trained on in step {step} but never went out")
            self._last_id = max(self._last_id, request_id)
            self.lives[request_id] = Life(state=TRAINED, step=step)
        elif life.state == DROPPED:
            self._violated(NOT_BOTH, f"request {request_id} was dropped ({life.reason}) and trained on in step {step}")
        else:
            self._expect(request_id, life, (COMPLETE,), f"was trained on in step {step}")
            life.state, life.step = TRAINED, step

    def _staleness(self, entry: Accepted) -> int:
        groups = [life.group for each in entry.request_ids if (life := self.lives.get(each))]
        return max(
            entry.staleness, *(entry.step - group.versions[0] for group in groups if group and group.versions), 0
        )

    def _learned(self, entry: Learned) -> None:
        step = self.steps.get(entry.step)
        if step is None:
            done = "is settled" if entry.step < self.settled.step else "was never accepted"
            self._violated(REPLAYS, f"step {entry.step} was learned but its batch {done}")
            return
        for before in step.learned[:1]:
            if before.loss != entry.loss:
                self._violated(REPLAYS, f"step {entry.step} had loss {before.loss} and when replayed {entry.loss}")
        step.learned.append(entry)

    def _published(self, entry: Published) -> None:
        before = self.published.setdefault(entry.version, entry.fingerprint)
        if before != entry.fingerprint:
            self._violated(
                ONE_FINGERPRINT, f"version {entry.version} was published as {before} and as {entry.fingerprint}"
            )

    def _proved(self, entry: Proved) -> None:
        before = self.proved.setdefault((entry.worker_id, entry.version), entry.fingerprint)
        if before != entry.fingerprint:
            self._violated(
                ONE_FINGERPRINT,
                f"{entry.worker_id} proved version {entry.version} as {before} and as {entry.fingerprint}",
            )

    def _saved(self, entry: Saved) -> None:
        self.checkpoints.append(entry)

    def _expect(self, request_id: int, life: Life, states: tuple[str, ...], event: str) -> None:
        if life.state not in states:
            self._violated(LIVES, f"request {request_id} {event} while it was {life.state}")

    def _violated(self, check: str, sentence: str) -> None:
        self.violations.append((check, sentence))
