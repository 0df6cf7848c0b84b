"""Folds what lies before a checkpoint into one `Settled` entry, so that a ledger stays small however long a job runs.

What goes: everything about requests trained on in steps before the checkpoint, and about those dropped for good. What
stays: entries of requests that are under way or belong to later steps, and all that the audit found. Sans IO.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

from rlhf_cluster.flow.history import DROPPED, LEARNED, TRAINED, VERIFIED, History, Life
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

MAX_VIOLATIONS = 100
"""Kept of those whose entries go; a job with one more is no better."""


def settle(entries: Iterable[Entry], history: History, *, step: int) -> list[Entry]:
    """The entries to keep of `entries`, whose fold is `history`: one `Settled` first, then the rest as they were.

    Batches before `step` are folded; it is at most the next one, and none of them is needed to resume.
    """
    lately = set(history.dropped_since_last_accept)
    over = {
        request_id: life
        for request_id, life in history.lives.items()
        if (life.state == TRAINED and life.step < step) or (life.state == DROPPED and request_id not in lately)
    }
    settled = _with_proofs(_totals(history, over, step=step), history, over)
    covered = IdRanges(settled.request_ids)
    kept = [left for entry in entries if (left := _left_of(entry, covered, step=step))]
    # What the kept entries show by themselves is found again whenever they are folded.
    again = set(History([settled, *kept]).violations)
    found = [*history.violations, *_found(history, over, step=step)]
    return [replace(settled, violations=tuple(each for each in found if each not in again)[:MAX_VIOLATIONS]), *kept]


def _totals(history: History, over: dict[int, Life], *, step: int) -> Settled:
    before = history.settled
    steps = [each for number, each in history.steps.items() if number < step]
    groups = {each: life.group for each, life in over.items() if life.state == TRAINED and life.group}
    trained, unverified = groups.values(), history.unverified()
    dropped = Counter(life.reason for life in over.values() if life.state == DROPPED)
    staleness = Counter(each.staleness for each in steps)
    return replace(
        before,
        step=max(step, before.step),
        time_s=max((each.accepted.time_s for each in steps), default=before.time_s),
        request_ids=(history.covered | IdRanges.of(over)).ranges,
        last_trained_id=max(
            [before.last_trained_id, *(each for batch in steps for each in batch.accepted.request_ids)]
        ),
        num_trained=before.num_trained + sum(life.state == TRAINED for life in over.values()),
        num_dropped=_summed(dropped, before.num_dropped),
        num_lost=before.num_lost + sum(life.num_lost for life in over.values()),
        num_completions=before.num_completions + sum(group.num_completions for group in trained),
        num_tokens=before.num_tokens + sum(group.num_tokens for group in trained),
        num_verified_tokens=before.num_verified_tokens
        + sum(group.num_tokens for each, group in groups.items() if each not in unverified),
        staleness=_summed(staleness, before.staleness),
        violations=(),
        quarantined=tuple(sorted(history.quarantined)),
        workers=tuple(sorted({*before.workers, *(worker for group in trained for worker in group.workers)})),
    )


def _with_proofs(settled: Settled, history: History, over: dict[int, Life]) -> Settled:
    """Keep the proofs of versions before the step that a later group may still hold tokens of.

    Those are the versions from the oldest that an unfolded request began with, and the one each worker serves.
    """
    newest: dict[str, int] = {}
    for worker_id, version in history.proved:
        newest[worker_id] = max(version, newest.get(worker_id, -1))
    begun = [_oldest_version(life) for each, life in history.lives.items() if each not in over]
    oldest = min([settled.step, *(version for version in begun if version >= 0)])
    served = set(newest.values())
    published = [
        (version, proof)
        for version, proof in history.published.items()
        if version < settled.step and (version >= oldest or version in served)
    ]
    proved = [
        (worker_id, version, proof)
        for (worker_id, version), proof in history.proved.items()
        if version < settled.step and (version >= oldest or version == newest[worker_id])
    ]
    return replace(settled, published=tuple(sorted(published)), proved=tuple(sorted(proved)))


def _oldest_version(life: Life) -> int:
    """-1 for one that never went out."""
    return life.group.versions[0] if life.group and life.group.versions else life.version


def _left_of(entry: Entry, covered: IdRanges, *, step: int) -> Entry | None:
    """What an entry says of requests, steps and versions that are not folded; None when that is nothing."""
    match entry:
        case Dispatched() | Lost():
            request_ids = tuple(each for each in entry.request_ids if each not in covered)
            return replace(entry, request_ids=request_ids) if request_ids else None
        case Opened():
            return replace(entry, restarted=tuple(each for each in entry.restarted if each not in covered))
        case Completed() | Dropped():
            return None if entry.request_id in covered else entry
        case Accepted() | Learned() | Saved():
            return None if entry.step < step else entry
        case Published() | Proved():
            return None if entry.version < step else entry
    return None


def _found(history: History, over: dict[int, Life], *, step: int) -> list[tuple[str, str]]:
    """What is wrong with the folded part and could not be told any more."""
    unverified = history.unverified()
    return [
        *((VERIFIED, f"request {each}: {why}") for each, why in unverified.items() if each in over),
        *((LEARNED, f"step {number} was not learned") for number in history.unlearned() if number < step),
    ]


def _summed(counts: Counter, before: tuple[tuple, ...]) -> tuple[tuple, ...]:
    return tuple(sorted((counts + Counter(dict(before))).items()))
