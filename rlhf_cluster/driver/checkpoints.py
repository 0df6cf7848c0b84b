"""Policies on disk while a job runs: whole or absent, the newest few and the best kept, and enough to go on from each.

    .writing-000012-3.1/ -> every file on disk -> MANIFEST.json -> still our job? -> step-000012/ -> old ones removed

A kill anywhere leaves what was there before, or the new one; the next save clears what was left half-way.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from rlhf_cluster.driver.checkpoint_manifest import flush, seal, verify
from rlhf_cluster.driver.clock import Clock
from rlhf_cluster.errors import CheckpointCorrupt, StorageError
from rlhf_cluster.records.events import CheckpointSaved

if TYPE_CHECKING:
    from rlhf_cluster.algorithms import Algorithm
    from rlhf_cluster.learner.group import LearnerGroup

STATE_FILE = "driver_state.json"


class Ownership(Protocol):
    """What shows that this driver, and no later one, runs the job."""

    @property
    def epoch(self) -> int: ...

    def check(self) -> None:
        """Raises `Fenced` when another driver has taken over."""
        ...


class Checkpoints:
    """`checkpoints/step-000012/` is a Hugging Face directory, with the learner's and the driver's state beside it."""

    def __init__(
        self,
        directory: Path,
        *,
        keep: int,
        state: Callable[[], dict[str, Any]],
        clock: Clock,
        keep_best: int = 0,
        best_by: str = "eval/reward_mean",
        claim: Ownership | None = None,
    ) -> None:
        """The newest `keep` stay, and besides them the `keep_best` with the largest `best_by`."""
        self.directory = directory
        self.keep = keep
        self.keep_best = keep_best
        self.best_by = best_by
        self._state = state
        self._clock = clock
        self._claim = claim
        self._num_begun = 0
        self._under_way: set[Path] = set()

    async def save(
        self, learner: LearnerGroup, *, step: int, metrics: Mapping[str, float] | None = None
    ) -> CheckpointSaved:
        """`begin`, and wait for it."""
        return await self.begin(learner, step=step, metrics=metrics)

    def begin(
        self, learner: LearnerGroup, *, step: int, metrics: Mapping[str, float] | None = None
    ) -> asyncio.Future[CheckpointSaved]:
        """Save learner and driver as they are now, in the background: what the learner is asked later does not matter.

        `metrics` are those of the evaluation at this step. The future raises `StorageError` when the disk refuses, and
        `Fenced`; then nothing has changed. Nothing is raised here.
        """
        state = {"step": step, **self._state(), "metrics": dict(metrics or {})}
        try:
            aside = self._make_aside(step)
        except StorageError as error:
            refused = asyncio.get_running_loop().create_future()
            refused.set_exception(error)
            return refused
        written = learner.save(aside, with_state=True)
        return asyncio.create_task(self._complete(aside, written, state, step=step))

    def saved(self) -> list[Path]:
        """Checkpoints that were completed, oldest first; whether they still are what was written tells `verify`."""
        return list(by_step(self.directory).values())

    def steps(self) -> list[int]:
        """Of the completed ones, oldest first."""
        return list(by_step(self.directory))

    @property
    def _epoch(self) -> int:
        return self._claim.epoch if self._claim else 0

    def _make_aside(self, step: int) -> Path:
        # Each attempt has its own: a call that was given up may still be writing into the one before.
        self._num_begun += 1
        aside = self.directory / f".writing-{step:06d}-{self._epoch}.{self._num_begun}"
        try:
            self._clear_leftovers()
            aside.mkdir(parents=True)
        except OSError as error:
            raise _refused(aside, error) from error
        self._under_way.add(aside)
        return aside

    async def _complete(
        self, aside: Path, written: asyncio.Future[Any], state: dict[str, Any], *, step: int
    ) -> CheckpointSaved:
        final = self.directory / f"step-{step:06d}"
        try:
            await written
            await asyncio.to_thread(self._finish, aside, final, state)
        except Exception:
            await asyncio.to_thread(_remove, aside)
            raise
        finally:
            self._under_way.discard(aside)
        return CheckpointSaved(time_s=self._clock.time(), step=step, path=final)

    def _finish(self, aside: Path, final: Path, state: dict[str, Any]) -> None:
        try:
            (aside / STATE_FILE).write_text(json.dumps(state, indent=2) + "\n")
            seal(aside, step=state["step"], epoch=self._epoch)
            self._check_claim()
            _put_in_place(aside, final)
        except OSError as error:
            raise _refused(final, error) from error
        self._remove_old(state["step"])

    def _remove_old(self, step: int) -> None:
        """Called when `step` is complete, which stays. So do later ones, of a future that was given up, until they are
        replaced."""
        earlier = {number: path for number, path in by_step(self.directory).items() if number <= step}
        kept = set(sorted(earlier)[-self.keep :]) | self._best(earlier)
        for number in earlier.keys() - kept:
            self._check_claim()
            _remove(earlier[number])

    def _best(self, checkpoints: Mapping[int, Path]) -> set[int]:
        """Steps of the `keep_best` with the largest `best_by`; the later of equals."""
        values = {step: read_metric(path, self.best_by) for step, path in checkpoints.items()}
        ranked = sorted((value, step) for step, value in values.items() if value is not None)
        return {step for _, step in ranked[max(0, len(ranked) - self.keep_best) :]}

    def _check_claim(self) -> None:
        if self._claim:
            self._claim.check()

    def _clear_leftovers(self) -> None:
        """What drivers up to this one left half-way. A later one may be writing at this moment."""
        for replaced in self.directory.glob(".replaced-*"):
            final = self.directory / replaced.name.removeprefix(".replaced-")
            if final.exists():
                _remove(replaced)
            else:
                replaced.rename(final)
        for aside in set(self.directory.glob(".writing-*")) - self._under_way:
            epoch = aside.name.rpartition("-")[2].partition(".")[0]
            if not epoch.isdecimal() or int(epoch) <= self._epoch:
                _remove(aside)
        for removing in self.directory.glob(".removing-*"):
            shutil.rmtree(removing, ignore_errors=True)


def newest_verified(directory: Path, *, tell: Callable[[str], None], step_at_most: int | None = None) -> Path | None:
    """The newest checkpoint in `directory` that is as it was written; None when there is none.

    `tell` gets a sentence for every newer one that was refused. `step_at_most` leaves out later ones. Changes nothing
    on disk.
    """
    found = by_step(directory)
    for step in sorted(found, reverse=True):
        if step_at_most is not None and step > step_at_most:
            continue
        try:
            verify(found[step])
        except CheckpointCorrupt as error:
            tell(f"checkpoint {found[step].name} is not used: {error}")
        except OSError as error:
            tell(f"checkpoint {found[step].name} is not used: {found[step]} cannot be read: {error.strerror}")
        else:
            return found[step]
    return None


def by_step(directory: Path) -> dict[int, Path]:
    """Checkpoints by step, oldest first, verified or not.

    One that was being replaced when its driver was killed is there under a hidden name.
    """
    paths = [*directory.glob(".replaced-step-*"), *directory.glob("step-*")]
    return dict(sorted((step_of(path), path) for path in paths if path.name.rpartition("-")[2].isdecimal()))


def step_of(checkpoint: Path) -> int:
    """`step-000012` -> 12."""
    return int(checkpoint.name.rpartition("-")[2])


def read_state(checkpoint: Path) -> dict[str, Any]:
    return json.loads((checkpoint / STATE_FILE).read_text())


def algorithm_of(checkpoint: Path, *, default: Algorithm) -> Algorithm:
    """For the batch after it; `default` where it says nothing, as it does when no coefficient has moved."""
    fields = read_state(checkpoint).get("algorithm", {})
    return default.model_copy(update=fields)


def moved_fields(algorithm: Algorithm, *, since: Algorithm) -> dict[str, Any]:
    """The hyper-parameters of `algorithm` that are no longer those of `since`, as JSON."""
    now, before = algorithm.model_dump(mode="json"), since.model_dump(mode="json")
    return {name: value for name, value in now.items() if value != before.get(name)}


def read_metric(checkpoint: Path, name: str) -> float | None:
    """The metric's value at this checkpoint; None where it was not evaluated, or its state cannot be read."""
    try:
        value = read_state(checkpoint).get("metrics", {}).get(name)
    except (OSError, ValueError):
        return None
    return value if isinstance(value, int | float) and math.isfinite(value) else None


def _put_in_place(aside: Path, final: Path) -> None:
    """One of the same step moves out of the way and is deleted last; `newest_verified` finds it there."""
    replaced = final.with_name(f".replaced-{final.name}")
    if final.exists():
        final.rename(replaced)
    aside.rename(final)
    flush(final.parent)
    if replaced.exists():
        _remove(replaced)


def _remove(checkpoint: Path) -> None:
    """Out of sight before it is deleted, so that a crash in between leaves no half. What cannot be deleted now is
    deleted before the next save."""
    hidden = checkpoint.with_name(f".removing-{checkpoint.name.lstrip('.')}")
    with contextlib.suppress(OSError):
        if hidden.exists():
            shutil.rmtree(hidden)
        checkpoint.rename(hidden)
        shutil.rmtree(hidden)


def _refused(path: Path, error: OSError) -> StorageError:
    return StorageError(
        f"checkpoint {path} could not be written: {error.strerror or error}. Those before it are untouched; "
        "free space, and the next one can be written"
    )
