"""Faults for simulated roles, drawn from a seed: which call of which replica meets which fault, and when within it.

    plan = FaultPlan(seed=7, kinds=("die", "garbage_version"), rate=0.05, max_faults=3)
    runtime = SimulatedRuntime(wrap=with_faults(plan))
    ...
    assert plan.fired["die"]

The same seed gives the same faults, whatever happens between them. A fault counts when it really struck.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from functools import partial

import xxhash

from rlhf_cluster.errors import did_you_mean
from rlhf_cluster.testing.simulated_role import SimulatedRole
from rlhf_cluster.testing.simulated_worker import SimulatedWorker

GARBAGE = ("garbage_count", "garbage_logprobs", "garbage_id", "garbage_version")
"""A completion too few, NaN log-probabilities, another request's id, a version from the future."""
WORKER_KINDS = ("die", "hang", "stall", "slow", "refuse", *GARBAGE)
REWARD_KINDS = ("reward_die", "reward_hang", "reward_invalid")
REFERENCE_KINDS = ("reference_die", "reference_hang")
LEARNER_KINDS = ("learner_die", "learner_hang")
KINDS = (*WORKER_KINDS, *REWARD_KINDS, *REFERENCE_KINDS, *LEARNER_KINDS)

SLOWDOWN = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    kind: str
    share: float
    """When within the call it strikes, 0 to 1 of the time that the call takes."""


class FaultPlan:
    """`rate` is the chance that a call meets a fault: a start, an adopt, a message of prompts, an update, a scoring.

    kind               what it meets
    `die`              every pending and later call raises `RoleDied` (`learner_die`, `reward_die`, ...)
    `hang`             nothing is answered any more, `status` included (`learner_hang`, ...)
    `stall`            `status` answers, and no token is added any more
    `slow`             prompts that begin from now on take ten times as long
    `refuse`           an adopt raises `FingerprintMismatch`
    `garbage_*`        groups that cannot be true
    `reward_invalid`   a server error: no completion of the call has a reward

    `poison` names prompts that kill every worker that gets them, always.
    """

    def __init__(
        self,
        *,
        seed: int,
        kinds: Collection[str] = (),
        rate: float = 0.05,
        max_faults: int | None = None,
        poison: Collection[str] = (),
    ) -> None:
        for kind in kinds:
            if kind not in KINDS:
                raise ValueError(
                    f"there is no fault {kind!r}{did_you_mean(kind, KINDS)}; choose from {', '.join(KINDS)}"
                )
        self.seed = seed
        self.kinds = tuple(kind for kind in KINDS if kind in kinds)
        self.rate = rate
        self.max_faults = max_faults
        self.poison = frozenset(poison)
        self.fired: Counter[str] = Counter()
        """How often each kind really struck, `poison` too."""
        self._num_drawn = 0
        self._num_calls: Counter[str] = Counter()

    def draw(self, worker_id: str, *, possible: Collection[str]) -> Fault | None:
        """What the next call of `worker_id` meets. `max_faults` bounds those drawn, over all roles."""
        call = self._num_calls[worker_id]
        self._num_calls[worker_id] += 1
        kinds = [kind for kind in self.kinds if kind in possible]
        if not kinds or (self.max_faults is not None and self._num_drawn >= self.max_faults):
            return None
        chance, choice, share = _three_shares(f"{self.seed} {worker_id} {call}")
        if chance >= self.rate:
            return None
        self._num_drawn += 1
        return Fault(kind=kinds[int(choice * len(kinds))], share=share)

    def strike(self, role: SimulatedRole, kind: str, *, after_s: float) -> None:
        """Have `kind` (of dying, hanging, stalling, slowing down) befall the role later; counts if it still lives."""
        asyncio.get_running_loop().call_later(after_s, partial(self._befall, role, kind))

    def _befall(self, role: SimulatedRole, kind: str) -> None:
        if role.death is not None or role.is_hung:
            return
        if kind == "poison" or kind.endswith("die"):
            role.kill(f"died of {kind}")
        elif kind.endswith("hang"):
            role.hang()
        elif kind == "slow":
            role.slowdown = SLOWDOWN
        else:
            assert isinstance(role, SimulatedWorker), f"{kind} does not befall a {role.role}"
            role.stall()
        self.fired[kind] += 1


def _three_shares(key: str) -> tuple[float, float, float]:
    """Three numbers from 0 to 1, exclusive."""
    bits = xxhash.xxh3_128_intdigest(key.encode())
    mask = 2**42 - 1
    return (bits & mask) / 2**42, (bits >> 42 & mask) / 2**42, (bits >> 84 & mask) / 2**42
