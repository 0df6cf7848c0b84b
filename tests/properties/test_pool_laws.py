"""Laws of the pool of a role under any order of starts, losses, scaling and drains."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from rlhf_cluster.flow.pool import ACTIVE, Close, Drain, Open, PoolState, Promote
from rlhf_cluster.flow.restarts import RestartBudget


class Supervisor(RuleBasedStateMachine):
    """Executes actions one at a time, and the world does what it wants in between."""

    @initialize(size=st.integers(1, 4), spares=st.integers(0, 2), adopts=st.booleans(), restarts=st.integers(0, 30))
    def begin(self, size, spares, adopts, restarts):
        budget = RestartBudget(max_restarts=restarts, window_s=1000, backoff_s=1, max_backoff_s=8)
        self.pool = PoolState(size=size, spares=spares, adopts=adopts, budget=budget)
        self.now_s = 0.0
        self.ever_opened: list[str] = []

    def those(self, *states: str) -> list[str]:
        return [worker_id for worker_id, member in self.pool.members.items() if member.state in states]

    @rule(limit=st.integers(1, 6))
    def execute(self, limit):
        for action in self.pool.actions(self.now_s)[:limit]:
            self.perform(action)

    def perform(self, action):
        match action:
            case Open(number):
                self.pool.opened(f"w-{number}")
                assert f"w-{number}" not in self.ever_opened, "an id names one incarnation"
                self.ever_opened.append(f"w-{number}")
            case Promote(worker_id):
                self.pool.promoted(worker_id)
            case Drain(worker_id):
                self.pool.draining(worker_id)
            case Close(worker_id):
                self.pool.closed(worker_id)

    @rule(data=st.data())
    def one_goes_on(self, data):
        """A member takes the next step of its life."""
        movable = [
            worker_id
            for worker_id in self.those("pending", "starting", "adopting", "draining")
            if self.pool.members[worker_id].state != "draining" or self.pool.members[worker_id].holds_work
        ]
        if movable:
            self.go_on(data.draw(st.sampled_from(movable)))

    def go_on(self, worker_id):
        event = {"pending": "placed", "starting": "started", "adopting": "serving", "draining": "closed"}
        getattr(self.pool, event[self.pool.members[worker_id].state])(worker_id)

    @precondition(lambda self: self.pool.members)
    @rule(data=st.data(), jitter=st.floats(0, 1))
    def one_is_lost(self, data, jitter):
        worker_id = data.draw(st.sampled_from(sorted(self.pool.members)))
        self.pool.lost(worker_id, reason="killed", now_s=self.now_s, jitter=jitter)

    @rule(size=st.integers(1, 5))
    def resize(self, size):
        self.pool.resize(size)

    @precondition(lambda self: self.pool.size > 1 and self.those("pending", "starting", "spare", *ACTIVE))
    @rule(data=st.data())
    def drain(self, data):
        candidates = self.those("pending", "starting", "spare", *ACTIVE)
        self.pool.drain(data.draw(st.sampled_from(candidates)))

    @precondition(lambda self: self.those("pending", "starting", "spare", *ACTIVE))
    @rule(data=st.data())
    def restart(self, data):
        before = self.pool.size
        self.pool.restart(data.draw(st.sampled_from(self.those("pending", "starting", "spare", *ACTIVE))))
        assert self.pool.size == before

    @rule(seconds=st.floats(0, 20))
    def time_passes(self, seconds):
        self.now_s += seconds

    @rule()
    def everything_comes_up_if_starts_succeed(self):
        """Without further losses the pool comes to rest with exactly what is wanted, unless its budget is spent."""
        for _ in range(200):
            if actions := self.pool.actions(self.now_s):
                for action in actions:
                    self.perform(action)
            elif waiting := self.those("pending", "starting", "adopting", "draining"):
                for worker_id in waiting:
                    self.go_on(worker_id)
            elif (due_s := self.pool.next_due_s(self.now_s)) is not None:
                self.now_s = due_s
            else:
                break
        if self.pool.spent is None:
            assert len(self.those("serving")) == self.pool.size
            assert len(self.pool.members) == self.pool.size + self.pool.spares

    @invariant()
    def what_is_asked_for_never_makes_more_than_size_active(self):
        if not hasattr(self, "pool"):
            return
        asked = self.pool.actions(self.now_s)
        num_drains = sum(isinstance(action, Drain) for action in asked)
        num_promotes = sum(isinstance(action, Promote) for action in asked)
        assert self.pool.num_active - num_drains + num_promotes <= self.pool.size
        assert not (num_drains and num_promotes)

    @invariant()
    def it_never_stands_still_below_its_size(self):
        if not hasattr(self, "pool") or self.pool.spent is not None or self.pool.num_active >= self.pool.size:
            return
        coming = self.those("pending", "starting")
        assert self.pool.actions(self.now_s) or coming or self.pool.next_due_s(self.now_s) is not None


TestSupervisor = Supervisor.TestCase
TestSupervisor.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
