"""Laws of the staleness buffer under any order of events, with a fleet whose workers adopt versions as they please."""

from __future__ import annotations

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from rlhf_cluster.flow.buffer import Buffer
from rlhf_cluster.records import Prompt, RolloutGroup

PROMPT = Prompt(prompt_id="0/0", text="", token_ids=np.array([1], dtype=np.int32))


class Fleet(RuleBasedStateMachine):
    """Three workers generate token by token and adopt at any time, also in the middle of a group."""

    @initialize(prompts_per_step=st.integers(1, 4), max_staleness=st.integers(0, 3), first_step=st.integers(0, 2))
    def start(self, prompts_per_step, max_staleness, first_step):
        self.buffer = Buffer(prompts_per_step=prompts_per_step, max_staleness=max_staleness, first_step=first_step)
        self.published = first_step
        self.worker_versions = [first_step] * 3
        self.generating: dict[int, tuple[int, list[int]]] = {}
        self.dispatched: list[int] = []
        self.dropped: set[int] = set()
        self.taken: list[int] = []

    @rule(worker=st.integers(0, 2), wanted=st.integers(1, 8))
    def dispatch(self, worker, wanted):
        version = self.worker_versions[worker]
        for _ in range(min(wanted, self.buffer.capacity(version))):
            request_id = len(self.dispatched)
            self.buffer.dispatch(request_id, version=version)
            self.dispatched.append(request_id)
            self.generating[request_id] = (worker, [])

    @precondition(lambda self: self.generating)
    @rule(data=st.data())
    def sample_a_token(self, data):
        worker, versions = self.generating[data.draw(st.sampled_from(sorted(self.generating)))]
        versions.append(self.worker_versions[worker])

    @rule(worker=st.integers(0, 2), ahead=st.integers(1, 3))
    def adopt(self, worker, ahead):
        self.worker_versions[worker] = min(self.worker_versions[worker] + ahead, self.published)

    @precondition(lambda self: self.generating)
    @rule(data=st.data())
    def complete(self, data):
        self._complete(data.draw(st.sampled_from(sorted(self.generating))))

    @precondition(lambda self: self.generating)
    @rule(data=st.data())
    def drop(self, data):
        request_id = data.draw(st.sampled_from(sorted(self.generating)))
        del self.generating[request_id]
        self.buffer.drop(request_id, reason="zero_variance")
        self.dropped.add(request_id)

    @precondition(lambda self: self.published == self.buffer.next_step)
    @rule()
    def take(self):
        """The learner takes the next batch when it has published the version before it."""
        step = self.published
        batch = self.buffer.take()
        if batch is None:
            return
        assert self.buffer.next_step == step + 1
        assert len(batch) == self.buffer.prompts_per_step
        for group in batch:
            assert 0 <= step - group.oldest_version <= self.buffer.max_staleness
        self.taken += [group.request_id for group in batch]

    @precondition(lambda self: self.published < self.buffer.next_step)
    @rule()
    def publish(self):
        self.published += 1

    @rule()
    def progress_is_always_possible(self):
        """Let everything in flight finish and every worker adopt: then a batch is ready or prompts are admitted."""
        for request_id in sorted(self.generating):
            self._complete(request_id)
        while self.published < self.buffer.next_step:
            self.publish()
        self.worker_versions = [self.published] * 3
        ready = self.buffer.snapshot().num_ready >= self.buffer.prompts_per_step
        assert ready or self.buffer.capacity(self.published) > 0

    @invariant()
    def nothing_is_lost_and_nothing_is_taken_twice_or_out_of_order(self):
        if not hasattr(self, "buffer"):
            return
        assert self.taken == [request for request in self.dispatched if request not in self.dropped][: len(self.taken)]
        assert len(self.dispatched) == len(self.taken) + len(self.dropped) + self.buffer.num_outstanding

    @invariant()
    def the_counts_agree_with_the_slots(self):
        if not hasattr(self, "buffer"):
            return
        snapshot = self.buffer.snapshot()
        assert snapshot.num_in_flight == len(self.generating)
        assert snapshot.num_in_flight + snapshot.num_complete == self.buffer.num_outstanding
        assert self.buffer.num_outstanding <= self.buffer.prompts_per_step * (self.buffer.max_staleness + 1)

    def _complete(self, request_id):
        worker, versions = self.generating.pop(request_id)
        versions = versions or [self.worker_versions[worker]]
        self.buffer.complete(
            RolloutGroup(
                request_id=request_id,
                prompt=PROMPT,
                worker_id=str(worker),
                lengths=np.array([len(versions)], dtype=np.int32),
                token_ids=np.zeros(len(versions), dtype=np.int32),
                logprobs=np.zeros(len(versions), dtype=np.float32),
                versions=np.array(versions, dtype=np.int32),
                finish_reasons=("stop",),
            )
        )


TestFleet = Fleet.TestCase
TestFleet.settings = settings(max_examples=150, stateful_step_count=50, deadline=None)
