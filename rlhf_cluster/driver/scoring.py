"""Reward servers and reference scorers: any one of them answers, and one that is lost is passed over.

consumes     groups with texts
produces     the same groups with rewards and reference log-probabilities
waits for    one server or scorer at a time; bounded, and judged by whether it still tells its status
unblocked by an answer; a server that joins in the place of a lost one
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from itertools import count
from typing import TYPE_CHECKING, Any

from rlhf_cluster.config import JobConfig
from rlhf_cluster.errors import BadAnswer, RoleError
from rlhf_cluster.flow.group_checks import score_problem
from rlhf_cluster.records import RolloutGroup
from rlhf_cluster.runtime.bounds import within
from rlhf_cluster.runtime.watch import watched

if TYPE_CHECKING:
    from rlhf_cluster.runtime.pool import Pool

Groups = tuple[RolloutGroup, ...]
Call = Callable[[Any, Sequence[RolloutGroup]], Awaitable[Sequence[RolloutGroup]]]


class DeadlyGroup(Exception):
    """Servers died of this group, each time with no other group at hand."""

    def __init__(self, group: RolloutGroup, evidence: Sequence[str]) -> None:
        super().__init__(f"request {group.request_id}: {'; '.join(evidence)}")
        self.group = group
        self.evidence = tuple(evidence)


class Scoring:
    def __init__(self, job: JobConfig, *, rewards: Pool | None, references: Pool | None) -> None:
        self._rewards = rewards
        self._references = references
        self._limits = job.limits
        self._recovery = job.recovery
        self._turns = count()
        self._num_calls: Counter[str] = Counter()
        """Under way, by worker."""

    async def follow(self, pool: Pool) -> None:
        """Let replicas that drain go, each when its last answer is there.

        consumes: the pool's changes and the ends of calls; produces: `drained`; waits for: the next of them; unblocked
        by: cancellation.
        """
        while True:
            pool.changed.clear()
            for worker_id in pool.draining():
                if not self._num_calls[worker_id]:
                    pool.drained(worker_id)
            await pool.changed.wait()

    async def rewarded(self, groups: Sequence[RolloutGroup]) -> Groups:
        """With rewards; as they are where the job has none. Raises `DeadlyGroup`, or `BudgetSpent` of the pool."""
        return await self._ask(self._rewards, groups, lambda server, given: server.score(given), "scoring")

    async def referenced(self, groups: Sequence[RolloutGroup]) -> Groups:
        """With reference log-probabilities; as they are where the algorithm needs none. Raises as `rewarded` does."""
        return await self._ask(self._references, groups, lambda scorer, given: scorer.logprobs(given), "scoring")

    async def _ask(self, pool: Pool | None, groups: Sequence[RolloutGroup], call: Call, activity: str) -> Groups:
        if pool is None or not groups:
            return tuple(groups)
        evidence: list[str] = []
        while len(evidence) < self._recovery.max_deaths:
            worker_id, handle = await self._next_of(pool)
            where = {"role": pool.role, "worker_id": worker_id, "activity": f"{activity} {len(groups)} groups"}
            self._num_calls[worker_id] += 1
            try:
                return await self._answer(call(handle, groups), groups, handle=handle, **where)
            except RoleError as error:
                pool.lost(worker_id, error)
                evidence.append(str(error))
            finally:
                self._num_calls[worker_id] -= 1
                pool.changed.set()
        if len(groups) == 1:
            raise DeadlyGroup(groups[0], evidence)
        # One of them may be to blame, so each is tried alone.
        return tuple([(await self._ask(pool, [group], call, activity))[0] for group in groups])

    async def _answer(
        self, answer: Awaitable[Sequence[RolloutGroup]], groups: Sequence[RolloutGroup], *, handle: Any, **where: str
    ) -> Groups:
        alive = watched(
            answer,
            handle=handle,
            stall_s=self._limits.score_s,
            unresponsive_s=self._recovery.unresponsive_s,
            poll_s=min(5.0, self._recovery.unresponsive_s / 4),
            counts_tokens=False,
            **where,
        )
        scored = tuple(await within(self._limits.score_s, alive, **where))
        if problem := score_problem(groups, scored):
            raise BadAnswer(f"{where['worker_id']} gave an answer that cannot be true: {problem}", **where)
        return scored

    async def _next_of(self, pool: Pool) -> tuple[str, Any]:
        """In turn; waits for a replacement where there is none. Raises the pool's failure."""
        while not (handles := pool.handles()):
            pool.raise_if_unserved()
            await asyncio.sleep(0.1)
        names = list(handles)
        name = names[next(self._turns) % len(names)]
        return name, handles[name]
