"""The proof that a job lost nothing: named checks over its history, each a yes or no and a sentence. Sans IO."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rlhf_cluster.flow.history import (
    COMPLETE,
    DROPPED,
    IN_ORDER,
    LEARNED,
    LIVES,
    NOT_BOTH,
    ONE_DRIVER,
    ONE_FINGERPRINT,
    OUT,
    REPLAYS,
    TRAINED,
    TRAINED_ONCE,
    VERIFIED,
    WAITING,
    History,
)
from rlhf_cluster.flow.id_ranges import IdRanges

READABLE = "every batch that a replay may need is there"
ACCOUNTED = "every prompt is accounted for"
STALENESS = "staleness is within its bound"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    name: str
    ok: bool
    sentence: str
    """What holds, or the first violation and how many there are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditReport:
    checks: tuple[Check, ...]
    num_steps: int
    """Batches accepted."""
    num_settled_steps: int
    """Of those, folded at a checkpoint."""
    num_trained: int
    """Prompts."""
    num_dropped: Mapping[str, int]
    """Prompts, by reason."""
    num_outstanding: int
    """Prompts under way, or waiting to be trained on."""
    num_lost: int
    """Times that a prompt went out again because its worker was lost or drained."""
    num_completions: int
    """Trained on."""
    num_tokens: int
    """Trained on."""
    num_verified_tokens: int
    staleness: Mapping[int, int]
    """Staleness -> batches."""
    max_staleness: int
    num_replays: int
    """Updates done again by a new learner."""
    versions: tuple[int, int]
    """The oldest and the newest published that is not settled; (-1, -1) for none."""
    workers: tuple[str, ...]
    """That generated what was trained on."""
    epochs: tuple[int, ...]
    """Of the drivers that had the job."""
    checkpoints: tuple[str, ...]

    @property
    def ok(self) -> bool:
        return all(check.ok for check in self.checks)


def audit(
    history: History, *, max_staleness: int, num_steps: int | None = None, unreadable: Sequence[str] = ()
) -> AuditReport:
    """With `num_steps`, the job's total, a finished job must have nothing under way. `unreadable` says of each batch
    that a replay may need why it cannot be read."""
    settled = history.settled
    trained = {each: life for each, life in history.lives.items() if life.state == TRAINED}
    groups = [life.group for life in trained.values() if life.group]
    unverified = history.unverified()
    dropped = Counter(life.reason for life in history.lives.values() if life.state == DROPPED)
    unverified_tokens = sum(life.group.num_tokens for each in unverified if (life := trained[each]).group)
    num_tokens = sum(group.num_tokens for group in groups)
    staleness = Counter(each.staleness for each in history.steps.values()) + Counter(dict(settled.staleness))
    return AuditReport(
        checks=_checks(history, staleness, unreadable, max_staleness=max_staleness, num_steps=num_steps),
        num_steps=history.step,
        num_settled_steps=settled.step,
        num_trained=settled.num_trained + len(trained),
        num_dropped=dict(sorted((dropped + Counter(dict(settled.num_dropped))).items())),
        num_outstanding=len(history.outstanding),
        num_lost=settled.num_lost + sum(life.num_lost for life in history.lives.values()),
        num_completions=settled.num_completions + sum(group.num_completions for group in groups),
        num_tokens=settled.num_tokens + num_tokens,
        num_verified_tokens=settled.num_verified_tokens + num_tokens - unverified_tokens,
        staleness=dict(sorted(staleness.items())),
        max_staleness=max_staleness,
        num_replays=sum(max(0, len(step.learned) - 1) for step in history.steps.values()),
        versions=(min(history.published, default=-1), max(history.published, default=-1)),
        workers=tuple(sorted({*settled.workers, *(worker for group in groups for worker in group.workers)})),
        epochs=tuple(opened.epoch for opened in history.drivers),
        checkpoints=tuple(saved.name for saved in history.checkpoints),
    )


def _checks(
    history: History, staleness: Counter[int], unreadable: Sequence[str], *, max_staleness: int, num_steps: int | None
) -> tuple[Check, ...]:
    stale = [f"{n} batches of staleness {age}" for age, n in sorted(staleness.items()) if age > max_staleness]
    unlearned = [f"step {number} was not learned" for number in history.unlearned() if number < history.step - 1]
    unverified = [f"request {each}: {why}" for each, why in history.unverified().items()]
    lost = _unaccounted(history, finished=num_steps is not None and history.step >= num_steps)
    num_seen = history.next_request_id
    found: list[tuple[str, Sequence[str], str]] = [
        (ACCOUNTED, lost, f"{num_seen} prompts without a gap: trained on, dropped with a reason, or under way"),
        (TRAINED_ONCE, (), "no request id is in two batches"),
        (NOT_BOTH, (), "no request id is in a batch and among the dropped"),
        (LIVES, (), "each went out, completed and was trained on or dropped, in that order"),
        (IN_ORDER, (), f"{history.step} steps, request ids ascending through all of them"),
        (VERIFIED, unverified, "every version in them was published and proved by a worker that generated with it"),
        (ONE_FINGERPRINT, (), f"{len(history.published)} versions on record, published again or not"),
        (STALENESS, stale, f"at most {max(staleness, default=0)}, the bound is {max_staleness}"),
        (LEARNED, unlearned, "the learner applied each of them, but perhaps the last"),
        (REPLAYS, (), "every update that was done again gave the same loss"),
        (READABLE, unreadable, f"{len(history.steps)} of them since the oldest checkpoint that is kept"),
        (ONE_DRIVER, (), "no driver wrote after a later one had taken over"),
    ]
    return tuple(_check(name, [*_violations(history, name), *new], holds) for name, new, holds in found)


def _unaccounted(history: History, *, finished: bool) -> list[str]:
    """Request ids that are nowhere; and in a finished job, those that are still under way."""
    seen = history.covered | IdRanges.of(history.lives)
    gaps = [f"requests {first} to {last} are nowhere" for first, last in seen.holes(end=history.next_request_id)]
    settled = history.settled
    num_settled = settled.num_trained + sum(number for _, number in settled.num_dropped)
    if num_settled != len(history.covered):
        gaps.append(f"{num_settled} requests were settled under {len(history.covered)} ids")
    states = Counter(life.state for life in history.lives.values() if life.state in (WAITING, OUT, COMPLETE))
    if finished and states:
        gaps += [f"the job is finished and {number} prompts are {state}" for state, number in states.items()]
    return gaps


def _violations(history: History, name: str) -> list[str]:
    return [sentence for check, sentence in history.violations if check == name]


def _check(name: str, violations: Sequence[str], holds: str) -> Check:
    if not violations:
        return Check(name=name, ok=True, sentence=holds)
    more = f" (and {len(violations) - 1} more)" if len(violations) > 1 else ""
    return Check(name=name, ok=False, sentence=violations[0] + more)
