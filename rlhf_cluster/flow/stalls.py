"""Finds workers that hang, by the tokens they make: a wedged engine still answers a ping.

A worker with work from which nothing was heard for a while is asked for its status. Tokens since the last look are
progress. Without any for a while its work should also be given to another worker (`Hedge`, cheap, early); without any
for long, or without an answer, it has to be replaced (`Hung`).

Nobody is judged who was not asked, and nobody for a time in which this watch itself stood still: between two calls its
clock moves on by `hedge_s / 2` at most. A driver that was suspended must not wake up and condemn its whole fleet.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from itertools import count

from rlhf_cluster.flow.gaps import GapHistogram

NUM_ASKS = 4
"""How often a quiet worker is asked before the first bound is reached."""
HEDGE_PER_GAP = 3.0
STALL_PER_GAP = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Hedge:
    """Give the worker's requests to another one as well. Told once a stall."""

    worker_id: str
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Hung:
    """Replace the worker. Told once a stall."""

    worker_id: str
    sentence: str


@dataclass(slots=True, kw_only=True, eq=False)
class _Watched:
    worker_id: str
    has_work: bool = False
    scheduled: bool = False
    """Stands in the heap, once."""
    tokens_total: int | None = None
    progress_s: float = 0.0
    """When it last showed a new token or a group."""
    looked_s: float = 0.0
    """When it was last seen without progress; `progress_s` when it was not."""
    contact_s: float = 0.0
    """When it last answered or sent anything."""
    paused_s: float | None = None
    is_silent: bool = False
    told: type[Hedge] | type[Hung] | None = None


class ProgressWatch:
    """The clocks of all workers. A look costs O(log n), and only quiet workers are looked at."""

    def __init__(self, *, hedge_s: float, stall_s: float, unresponsive_s: float) -> None:
        """All three are floors or bounds in seconds. The first two grow with the gaps between tokens that are usual
        here: to 3 and 10 times their 99th percentile."""
        if min(hedge_s, stall_s, unresponsive_s) <= 0:
            raise ValueError(
                f"hedge_s = {hedge_s:g}, stall_s = {stall_s:g} and unresponsive_s = {unresponsive_s:g} must be above 0"
            )
        self._hedge_s = hedge_s
        self._stall_s = stall_s
        self._unresponsive_s = unresponsive_s
        self._now_s = 0.0
        self._told_s: float | None = None
        self._gaps = GapHistogram()
        self._workers: dict[str, _Watched] = {}
        self._asked: dict[str, _Watched] = {}
        """Asked since they last showed progress: the only ones that can be judged."""
        self._due: list[tuple[float, int, _Watched]] = []
        self._tickets = count()

    @property
    def ask_every_s(self) -> float:
        """A worker quiet for this long is asked; call `ask` and `verdicts` about this often."""
        return min(self._hedge_s, self._stall_s, self._unresponsive_s) / NUM_ASKS

    @property
    def hedge_after_s(self) -> float:
        """Seconds without a token after which work is hedged, as of now."""
        return max(self._hedge_s, HEDGE_PER_GAP * self._gaps.p99_s)

    @property
    def stall_after_s(self) -> float:
        """Seconds without a token after which a worker has hung, as of now."""
        return max(self._stall_s, STALL_PER_GAP * self._gaps.p99_s)

    def sent(self, worker_id: str, now_s: float) -> None:
        """It was given work. Work on top of work does not set its clock back."""
        now = self._tick(now_s)
        worker = self._workers.setdefault(worker_id, _Watched(worker_id=worker_id))
        if not worker.has_work:
            worker.has_work = True
            # Of an adoption under way only what is left of it counts as a pause of this work.
            worker.paused_s = None if worker.paused_s is None else now
            self._show_life(worker, now)
        self._schedule(worker, now + self.ask_every_s)

    def heard(self, worker_id: str, now_s: float) -> None:
        """A group arrived from it."""
        now = self._tick(now_s)
        if worker := self._workers.get(worker_id):
            self._progress(worker, now)

    def status(self, worker_id: str, tokens_total: int, now_s: float) -> None:
        """It told its status. Answers of workers that were forgotten meanwhile are passed over."""
        now = self._tick(now_s)
        if (worker := self._workers.get(worker_id)) is None:
            return
        before, worker.tokens_total = worker.tokens_total, tokens_total
        if before is not None and tokens_total != before:
            self._progress(worker, now)
            return
        worker.looked_s = worker.contact_s = now
        worker.is_silent = False

    def silent(self, worker_id: str, now_s: float) -> None:
        """A status request went unanswered."""
        self._tick(now_s)
        if worker := self._workers.get(worker_id):
            worker.is_silent = True

    def idle(self, worker_id: str) -> None:
        """It has no work any more; nothing is expected of it."""
        if worker := self._workers.get(worker_id):
            worker.has_work = False
            self._asked.pop(worker_id, None)

    def forget(self, worker_id: str) -> None:
        """It is gone."""
        self._workers.pop(worker_id, None)
        self._asked.pop(worker_id, None)

    def paused(self, worker_id: str, now_s: float) -> None:
        """It adopts weights, which makes no tokens: its clock stands until `resumed`."""
        now = self._tick(now_s)
        worker = self._workers.setdefault(worker_id, _Watched(worker_id=worker_id))
        if worker.paused_s is None:
            worker.paused_s = now

    def resumed(self, worker_id: str, now_s: float) -> None:
        now = self._tick(now_s)
        worker = self._workers.get(worker_id)
        if worker is None or worker.paused_s is None:
            return
        # A group that arrived during the pause has set the clocks later than the pause's start.
        worker.progress_s = min(now, worker.progress_s + now - worker.paused_s)
        worker.looked_s = min(now, worker.looked_s + now - worker.paused_s)
        worker.contact_s = min(now, worker.contact_s + now - worker.paused_s)
        worker.paused_s = None

    def ask(self, now_s: float) -> tuple[str, ...]:
        """Workers whose status should be asked now: with work, and quiet for `ask_every_s`."""
        now = self._tick(now_s)
        asked = []
        while self._due and self._due[0][0] <= now:
            _, _, worker = heapq.heappop(self._due)
            worker.scheduled = False
            if not worker.has_work or self._workers.get(worker.worker_id) is not worker:
                continue
            due_s = worker.contact_s + self.ask_every_s
            if worker.paused_s is None and due_s <= now:
                self._asked[worker.worker_id] = worker
                asked.append(worker.worker_id)
            self._schedule(worker, due_s if due_s > now else now + self.ask_every_s)
        return tuple(asked)

    def verdicts(self, now_s: float) -> tuple[Hedge | Hung, ...]:
        """What is to be done about workers that `ask` named and that have shown nothing since."""
        now = self._tick(now_s)
        found = [self._judge(worker, now) for worker in self._asked.values() if worker.paused_s is None]
        return tuple(verdict for verdict in found if verdict is not None)

    def _judge(self, worker: _Watched, now: float) -> Hedge | Hung | None:
        quiet_s, unheard_s = now - worker.progress_s, now - worker.contact_s
        verdict: Hedge | Hung | None = None
        if worker.told is Hung:
            return None
        if worker.is_silent and unheard_s >= self._unresponsive_s:
            sentence = f"{worker.worker_id} has work and has not told its status for {unheard_s:.1f} s"
            verdict = Hung(worker_id=worker.worker_id, sentence=_bounded(sentence, self._unresponsive_s))
        elif quiet_s >= self.stall_after_s:
            sentence = f"{worker.worker_id} has work and made no token for {quiet_s:.1f} s"
            verdict = Hung(worker_id=worker.worker_id, sentence=_bounded(sentence, self.stall_after_s))
        elif quiet_s >= self.hedge_after_s and worker.told is None:
            sentence = f"{worker.worker_id} made no token for {quiet_s:.1f} s, its work also goes to another worker"
            verdict = Hedge(worker_id=worker.worker_id, sentence=_bounded(sentence, self.hedge_after_s))
        if verdict is not None:
            worker.told = type(verdict)
        return verdict

    def _progress(self, worker: _Watched, now: float) -> None:
        if worker.has_work and worker.paused_s is None:
            # The gap that was certainly there. Up to `now` it would also hold the time between two looks.
            self._gaps.add(worker.looked_s - worker.progress_s)
        self._show_life(worker, now)

    def _show_life(self, worker: _Watched, now: float) -> None:
        worker.progress_s = worker.looked_s = worker.contact_s = now
        worker.is_silent = False
        worker.told = None
        self._asked.pop(worker.worker_id, None)

    def _schedule(self, worker: _Watched, due_s: float) -> None:
        if not worker.scheduled:
            worker.scheduled = True
            heapq.heappush(self._due, (due_s, next(self._tickets), worker))

    def _tick(self, now_s: float) -> float:
        """The watch's own time, which no gap between two calls moves far."""
        if self._told_s is not None:
            self._now_s += min(max(0.0, now_s - self._told_s), self._hedge_s / 2)
        self._told_s = now_s
        return self._now_s


def _bounded(sentence: str, bound_s: float) -> str:
    return f"{sentence} (bound {bound_s:.1f} s)"
