"""How many replicas each role has from now on, who chooses, and the file by which that outlives the driver.

`control/desired.json` of the job directory is written at every change that a person or the policy makes, and read by
the next driver: it begins with what was wanted last, whatever the job file says. A lost replica changes nothing.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rlhf_cluster.driver.record_json import build, parse_object
from rlhf_cluster.driver.whole_file import read_small, write_whole
from rlhf_cluster.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from rlhf_cluster.config import JobConfig
    from rlhf_cluster.driver.claim import Claim
    from rlhf_cluster.runtime.pool import Pool

FILE_NAME = "control/desired.json"
ROLES = ("rollout", "reward", "reference")
AUTOMATIC = "rollout"
"""The role whose size a policy can choose: the one that the learner waits for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """Between which the policy chooses."""

    min_workers: int
    max_workers: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Desired:
    """Of one role."""

    role: str
    num_workers: int
    mode: str = "manual"
    """Or `auto`: then a policy chose this number, between the bounds that follow."""
    min_workers: int = 0
    max_workers: int = 0

    @property
    def bounds(self) -> Bounds | None:
        return Bounds(min_workers=self.min_workers, max_workers=self.max_workers) if self.mode == "auto" else None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Content:
    pools: tuple[Desired, ...]


def read_desired(job_dir: Path) -> dict[str, Desired]:
    """By role; empty for a job of which nobody has asked for anything. Raises `ConfigError` where it cannot be read."""
    try:
        content = build(_Content, parse_object(read_small(job_dir / FILE_NAME)), extra=True)
        return {desired.role: _sensible(desired) for desired in content.pools}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"{FILE_NAME} does not say how many workers are wanted: {reason}") from error


def keep_chosen(job_dir: Path, job: JobConfig) -> None:
    """For whoever wrote what is wanted now into the job file: of what a former driver was asked for only the number
    stays that a policy has chosen between the bounds that hold still. Raises `OSError`."""
    path = job_dir / FILE_NAME
    try:
        former = read_desired(job_dir)
    except ConfigError:
        former = {}
    auto = job.autoscale
    bounds = Bounds(min_workers=auto.min_workers, max_workers=auto.max_workers) if auto else None
    kept = tuple(each for each in former.values() if bounds and each.bounds == bounds)
    if kept:
        write_whole(path, json.dumps(dataclasses.asdict(_Content(pools=kept))) + "\n")
    else:
        path.unlink(missing_ok=True)


def sizes_of(desired: Mapping[str, Desired]) -> dict[str, int]:
    """Replicas by role."""
    return {role: each.num_workers for role, each in desired.items()}


def _sensible(desired: Desired) -> Desired:
    if desired.role not in ROLES:
        raise ValueError(f"role = {desired.role!r} is not one of {', '.join(ROLES)}")
    if desired.num_workers < 1:
        raise ValueError(f"num_workers = {desired.num_workers} of {desired.role} has to be at least 1")
    if desired.mode not in ("manual", "auto"):
        raise ValueError(f"mode = {desired.mode!r} of {desired.role} is neither manual nor auto")
    if bounds := desired.bounds:
        _check_bounds(desired.role, bounds)
    return desired


def _check_bounds(role: str, bounds: Bounds) -> None:
    if role != AUTOMATIC:
        raise ConfigError(
            f"no policy chooses the number of {role} replicas, only that of {AUTOMATIC} workers, for which the "
            f"learner waits: scale {role} by hand"
        )
    if not 1 <= bounds.min_workers <= bounds.max_workers:
        raise ConfigError(
            f"min_workers = {bounds.min_workers} and max_workers = {bounds.max_workers}: the first has to be at least "
            "1, and the second no less than the first"
        )


class Sizes:
    """Every change of a size that is meant to last goes through here. Raises `Fenced` once the driver was replaced."""

    def __init__(
        self, job: JobConfig, pools: Mapping[str, Pool], *, job_dir: Path, claim: Claim, desired: Mapping[str, Desired]
    ) -> None:
        """`desired` is what was wanted last, with which the pools have begun."""
        self.bounds: Bounds | None = None
        """Of the policy for the rollout workers; None while they are scaled by hand."""
        self._job = job
        self._pools = pools
        self._job_dir = job_dir
        self._claim = claim
        if AUTOMATIC in desired:
            self.bounds = desired[AUTOMATIC].bounds
        elif job.autoscale is not None:
            self.bounds = Bounds(min_workers=job.autoscale.min_workers, max_workers=job.autoscale.max_workers)

    def by_hand(self, role: str, num_workers: int) -> str:
        """Have so many from now on; ends the policy of this role. Raises `ConfigError`."""
        pool = self._pool(role)
        self._refuse_a_second_vllm(role, num_workers)
        self._claim.check()
        before = pool.size
        pool.resize(num_workers)
        told = f"{role}: {before} -> {num_workers} wanted from now on"
        if role == AUTOMATIC and self.bounds is not None:
            told += f"; the policy that chose {_between(self.bounds)} is off"
            self.bounds = None
        return told + self.keep()

    def by_policy(self, role: str, bounds: Bounds) -> str:
        """Have a policy choose from now on. Raises `ConfigError`."""
        pool = self._pool(role)
        _check_bounds(role, bounds)
        self._refuse_a_second_vllm(role, bounds.max_workers)
        self._claim.check()
        before = pool.size
        size = min(max(before, bounds.min_workers), bounds.max_workers)
        pool.resize(size)
        self.bounds = bounds
        now = f"{before} -> {size} wanted now" if size != before else f"it begins with {size}"
        return f"{role}: a policy chooses {_between(bounds)} from now on; {now}" + self.keep()

    def choose(self, num_workers: int) -> str:
        """What the policy wants; returns what `keep` does."""
        self._claim.check()
        self._pools[AUTOMATIC].resize(num_workers)
        return self.keep()

    def keep(self) -> str:
        """Write down what is wanted now. Returns the end of a sentence for people where that fails, else nothing: a
        disk that is full stops no job."""
        self._claim.check()
        content = _Content(pools=tuple(self._desired(role, pool) for role, pool in self._pools.items()))
        path = self._job_dir / FILE_NAME
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, json.dumps(dataclasses.asdict(content)) + "\n")
        except OSError as error:
            return f"; {FILE_NAME} cannot be written ({error.strerror}), so a next driver would not know of it"
        return ""

    def _desired(self, role: str, pool: Pool) -> Desired:
        if role != AUTOMATIC or self.bounds is None:
            return Desired(role=role, num_workers=pool.size)
        return Desired(role=role, num_workers=pool.size, mode="auto", **dataclasses.asdict(self.bounds))

    def _refuse_a_second_vllm(self, role: str, num_workers: int) -> None:
        if role == AUTOMATIC and num_workers > 1 and self._job.has_one_rollout_worker:
            raise ConfigError(
                f'{num_workers} rollout workers of vLLM with runtime = "local", where vLLM can be opened once: run the '
                'job with runtime = "ray" to scale it'
            )

    def _pool(self, role: str) -> Pool:
        if role not in self._pools:
            hint = did_you_mean(role, self._pools)
            has = ", ".join(self._pools) or "a learner alone, of a fixed size"
            raise ConfigError(f"role {role!r} cannot be scaled in this job{hint}; it has {has}")
        return self._pools[role]


def _between(bounds: Bounds) -> str:
    return f"between {bounds.min_workers} and {bounds.max_workers}"
