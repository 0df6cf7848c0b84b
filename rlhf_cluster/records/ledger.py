"""What the ledger says of a job: one entry for everything that can happen to a prompt, a batch or a weight version.

The life of a request (one prompt, asked once) is

    dispatched -> [lost -> dispatched]* -> completed -> accepted in step s        or        -> dropped, and why

A request's id is its place in the prompt stream, so the id alone says which prompt it is. Entries hold no token; the
tokens of completed groups lie in the rollout log, at the `place` that the entry names.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    epoch: int
    """Of the driver that wrote it; grows with every start and resume of the job."""
    time_s: float
    """Unix time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened(Entry):
    """A driver took the job over."""

    step: int
    """Batches accepted before."""
    restarted: tuple[int, ...] = ()
    """Requests that were under way, or dropped since the last batch, and whose life begins anew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dispatched(Entry):
    """Requests went to a worker, together, first or again."""

    request_ids: tuple[int, ...]
    worker_id: str
    version: int
    """That the worker served when they were sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost(Entry):
    """A worker was lost or drained; these requests were with it and go out again."""

    request_ids: tuple[int, ...]
    worker_id: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Completed(Entry):
    """A group is generated, scored and worth training on, and lies in the rollout log."""

    request_id: int
    prompt_id: str
    workers: tuple[str, ...]
    """All that generated tokens of it; more than one where a drained worker handed it over."""
    versions: tuple[int, ...]
    """The weight versions of its tokens, each once, ascending."""
    num_completions: int
    num_tokens: int
    place: tuple[int, int]
    """(segment, first byte) in the rollout log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dropped(Entry):
    """A request ends without being trained on."""

    request_id: int
    prompt_id: str
    reason: str

    QUARANTINED: ClassVar[str] = "quarantined"
    """The reason of a prompt that workers die of: it stays out for the rest of the job."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted(Entry):
    """A batch is durable and will be trained on in this step, whatever dies from now on."""

    step: int
    request_ids: tuple[int, ...]
    """In the order of the batch."""
    staleness: int
    """Step minus the oldest version of any token in it."""
    digest: str
    """xxh3-128 over every column of the credited batch, 32 hex digits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Learned(Entry):
    """The learner has applied the batch of a step. Said again when a new learner replays it."""

    step: int
    version: int
    loss: str
    """`float.hex()`, so that a replay can be compared to the bit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Published(Entry):
    version: int
    fingerprint: str
    """Of the manifest."""
    author: tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Proved(Entry):
    """A worker adopted a version and proved that it holds it."""

    worker_id: str
    version: int
    fingerprint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved(Entry):
    """A checkpoint is complete; batches of earlier steps are not needed to resume from it."""

    step: int
    name: str
    """Of its directory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled(Entry):
    """All that was accepted before a checkpoint, and all that was dropped for good, in place of its entries.

    It stands first in the log. What the entries proved stays provable: which ids were used up, and what was wrong.
    """

    step: int = 0
    """Batches of earlier steps are in here."""
    request_ids: tuple[tuple[int, int], ...] = ()
    """(first, last) of the requests in here, trained or dropped; none of them may be seen again."""
    last_trained_id: int = -1
    num_trained: int = 0
    num_dropped: tuple[tuple[str, int], ...] = ()
    """(reason, requests), by reason."""
    num_lost: int = 0
    """Times that a request went out again because its worker was lost."""
    num_completions: int = 0
    num_tokens: int = 0
    """Trained on."""
    num_verified_tokens: int = 0
    """Of those, the ones whose version was published and proved by a worker that generated them."""
    staleness: tuple[tuple[int, int], ...] = ()
    """(staleness, batches), ascending."""
    workers: tuple[str, ...] = ()
    """That generated what was trained on."""
    published: tuple[tuple[int, str], ...] = ()
    """(version, fingerprint) that later groups may still hold tokens of."""
    proved: tuple[tuple[str, int, str], ...] = ()
    """(worker id, version, fingerprint), likewise."""
    violations: tuple[tuple[str, str], ...] = ()
    """(check, sentence) that the audit found."""
    quarantined: tuple[str, ...] = ()
    """Prompt ids that stay out for the rest of the job."""
