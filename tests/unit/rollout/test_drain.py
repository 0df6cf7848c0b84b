"""A rollout worker that drains: every request comes back, as far as it got, and another worker goes on with it."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
import time

import numpy as np
import pytest

from rlhf_cluster.errors import NotServing, RoleTimeout
from rlhf_cluster.records import LogitProbe, Prompt, RolloutGroup, RolloutRequest, Sampling, WeightHandle
from rlhf_cluster.rollout.engines.scripted import RunningScripted, ScriptedEngine
from rlhf_cluster.rollout.worker import RolloutWorker
from rlhf_cluster.weights import flat

torch = pytest.importorskip("torch")


class Shelf:
    """A transport of which only `fetch` is used: the location is the buffer."""

    def fetch(self, handle: WeightHandle) -> np.ndarray:
        return handle.location


class GatedEngine:
    """Opens a scripted engine that a test can hold in a step or in a load of weights."""

    def __init__(self) -> None:
        self._may_pass = {"step": threading.Event(), "load": threading.Event()}
        self._held = {"step": threading.Event(), "load": threading.Event()}
        self.release()

    def open(self, model_path, *, threads: int) -> GatedRunning:
        return GatedRunning(self)

    def release(self) -> None:
        for event in self._may_pass.values():
            event.set()

    def hold(self, what: str) -> None:
        self._may_pass[what].clear()

    async def holds(self, what: str) -> None:
        assert await asyncio.to_thread(self._held[what].wait, 10)

    def pass_by(self, what: str) -> None:
        if not self._may_pass[what].is_set():
            self._held[what].set()
            assert self._may_pass[what].wait(10)


class GatedRunning(RunningScripted):
    def __init__(self, gate: GatedEngine) -> None:
        super().__init__(ScriptedEngine(token_s=0.001), clock=time)
        self._gate = gate

    def step(self):
        self._gate.pass_by("step")
        return super().step()

    def load_weights(self, version, tensors):
        self._gate.pass_by("load")
        super().load_weights(version, tensors)


def weights(version: int) -> WeightHandle:
    tensors = [("weight", torch.full((4, 3), float(version)))]
    manifest, buffer = flat.flatten(tensors, version=version, dtype=torch.float32)
    nothing = np.zeros(0, dtype=np.float32)
    probe = LogitProbe(token_ids=np.zeros(1, dtype=np.int32), logprobs=nothing, tolerance=1.0)
    return WeightHandle(manifest=manifest, location=buffer, probe=probe)


def worker_named(worker_id: str, engine: ScriptedEngine | GatedEngine | None = None, **options) -> RolloutWorker:
    engine = engine or ScriptedEngine(token_s=0.001)
    return RolloutWorker(engine, None, worker_id=worker_id, transport=Shelf(), **options)


def rollout_requests(ids, *, max_new_tokens: int = 4000, ignore_eos: bool = True) -> list[RolloutRequest]:
    return [
        RolloutRequest(
            request_id=i,
            prompt=Prompt(prompt_id=f"{i}/0", text="", token_ids=np.arange(3, dtype=np.int32)),
            num_completions=2,
            sampling=Sampling(max_new_tokens=max_new_tokens, ignore_eos=ignore_eos),
            seed=i,
        )
        for i in ids
    ]


async def collect(worker: RolloutWorker, requests) -> dict[int, RolloutGroup]:
    return {group.request_id: group async for message in worker.run(requests) for group in message}


async def until(worker: RolloutWorker, condition) -> None:
    for _ in range(5000):
        if condition(await worker.status()):
            return
        await asyncio.sleep(0.001)
    raise AssertionError(f"never came true: {await worker.status()}")


def on_workers(story, *workers: RolloutWorker) -> None:
    """Run `story(*workers)` once each has adopted version 1, and close them."""

    async def main() -> None:
        for worker in workers:
            await worker.adopt(weights(1))
        try:
            await story(*workers)
        finally:
            for worker in workers:
                await worker.close()

    asyncio.run(asyncio.wait_for(main(), 30))


def test_draining_under_load_with_three_streams_loses_no_request():
    async def story(leaving, staying):
        batches = [rollout_requests(range(first, first + 4), max_new_tokens=400) for first in (0, 4, 2)]
        running = [asyncio.create_task(collect(leaving, batch)) for batch in batches]
        await until(leaving, lambda status: status.tokens_total >= 40)
        await leaving.drain()
        for batch, groups in zip(batches, await asyncio.gather(*running), strict=True):
            assert [*groups] == [request.request_id for request in batch]
            assert all(not group.is_finished and group.worker_id == "leaving" for group in groups.values())
            begun = [dataclasses.replace(request, begun=groups[request.request_id]) for request in batch]
            whole, uninterrupted = await collect(staying, begun), await collect(staying, batch)
            for request_id, group in whole.items():
                assert group.is_finished
                assert group.worker_id == "staying"
                np.testing.assert_array_equal(group.token_ids, uninterrupted[request_id].token_ids)
                np.testing.assert_array_equal(group.logprobs, uninterrupted[request_id].logprobs)

    on_workers(story, worker_named("leaving"), worker_named("staying", ScriptedEngine()))


def test_finished_groups_come_as_usual_and_then_the_unfinished_ones_and_the_end():
    async def story(worker):
        requests = rollout_requests([0], max_new_tokens=3) + rollout_requests([1, 2])
        messages = worker.run(requests)
        assert [group.is_finished for group in await anext(messages)] == [True]
        await worker.drain()
        assert {group.request_id: group.is_finished for group in await anext(messages)} == {1: False, 2: False}
        with pytest.raises(StopAsyncIteration):
            await anext(messages)

    on_workers(story, worker_named("rollout-0"))


def test_a_draining_worker_takes_nothing_more_and_says_so():
    async def story(worker):
        await worker.drain()
        await worker.drain()
        with pytest.raises(NotServing, match="is draining"):
            await collect(worker, rollout_requests([0]))
        status = await worker.status()
        assert (status.state, status.version, status.num_in_flight) == ("draining", 1, 0)
        await worker.close()
        assert (await worker.status()).state == "closed"
        await worker.drain()

    on_workers(story, worker_named("rollout-0"))


def test_requests_on_their_way_in_are_refused_or_handed_over_but_never_stuck():
    engine = GatedEngine()

    async def story(worker):
        running = asyncio.create_task(collect(worker, rollout_requests([0])))
        await until(worker, lambda status: status.tokens_total > 0)
        engine.hold("step")
        await engine.holds("step")
        late = asyncio.create_task(collect(worker, rollout_requests([1])))
        await asyncio.sleep(0)  # It is posted and waits for the step to end.
        draining = asyncio.create_task(worker.drain())
        await asyncio.sleep(0)
        engine.release()
        await draining
        assert [*await running] == [0]
        with pytest.raises(NotServing, match="is draining"):
            await late

    on_workers(story, worker_named("rollout-0", engine))


def test_draining_a_worker_that_never_started_does_not_start_it():
    async def story():
        worker = worker_named("rollout-0")
        await worker.drain()
        assert ((await worker.status()).state, (await worker.status()).activity) == ("draining", "not started")
        with pytest.raises(NotServing, match="is draining"):
            await collect(worker, rollout_requests([0]))
        await worker.close()

    on_workers(story)


def test_draining_while_weights_are_loaded_waits_for_them_and_adopting_stays_allowed():
    engine = GatedEngine()

    async def story(worker):
        running = asyncio.create_task(collect(worker, rollout_requests([0, 1])))
        await until(worker, lambda status: status.tokens_total > 0)
        engine.hold("load")
        adopting = asyncio.create_task(worker.adopt(weights(2)))
        await engine.holds("load")
        draining = asyncio.create_task(worker.drain())
        await asyncio.sleep(0.02)
        assert (await worker.status()).state == "draining"
        assert not draining.done()
        engine.release()
        await draining
        assert {*await running} == {0, 1}
        assert (await adopting).version == 2
        assert (await worker.adopt(weights(3))).version == 3

    on_workers(story, worker_named("rollout-0", engine))


def test_a_reader_that_went_away_is_handed_nothing_and_disturbs_nobody():
    async def story(worker):
        gone = asyncio.create_task(collect(worker, rollout_requests([0])))
        kept = asyncio.create_task(collect(worker, rollout_requests([0, 1])))
        await until(worker, lambda status: status.num_in_flight == 3)
        gone.cancel()
        await worker.drain()
        assert {*await kept} == {0, 1}
        unread = worker.run(rollout_requests([5]))
        await unread.aclose()
        assert (await worker.status()).tokens_in_flight == 0

    on_workers(story, worker_named("rollout-0"))


def test_status_answers_while_the_engine_is_stuck_and_draining_is_bounded():
    engine = GatedEngine()

    async def story(worker):
        running = asyncio.create_task(collect(worker, rollout_requests([0])))
        await until(worker, lambda status: status.tokens_total > 0)
        engine.hold("step")
        await engine.holds("step")
        with pytest.raises(RoleTimeout, match=r"within 0\.3 s while draining.*generating for 1 prompts"):
            await worker.drain()
        status = await worker.status()
        assert (status.state, status.num_in_flight) == ("draining", 1)
        assert status.tokens_in_flight == status.tokens_total > 0
        assert status.activity == "generating for 1 prompts"
        engine.release()
        await worker.drain()
        # Its own patience may have ended just before: the reader of a stuck engine is told.
        [outcome] = await asyncio.gather(running, return_exceptions=True)
        assert isinstance(outcome, RoleTimeout) or not outcome[0].is_finished

    on_workers(story, worker_named("rollout-0", engine, patience_s=0.3))


def test_tokens_are_counted_once_and_the_count_never_falls():
    async def story(leaving, staying):
        seen = []

        async def watched(worker) -> int:
            seen.append((await worker.status()).tokens_total)
            return (await worker.status()).tokens_in_flight

        given_up = asyncio.create_task(collect(leaving, rollout_requests([0])))
        running = asyncio.create_task(collect(leaving, rollout_requests([1], max_new_tokens=2000)))
        await until(leaving, lambda status: status.tokens_total >= 30)
        assert await watched(leaving) > 0
        given_up.cancel()
        await asyncio.gather(given_up, return_exceptions=True)
        await watched(leaving)
        await leaving.drain()
        assert await watched(leaving) == 0
        assert seen == sorted(seen)
        begun = (await running)[1]
        assert begun.num_tokens < seen[-1]
        [request] = rollout_requests([1], max_new_tokens=2000)
        whole = await collect(staying, [dataclasses.replace(request, begun=begun)])
        status = await staying.status()
        assert whole[1].num_tokens == 4000
        assert (status.tokens_total, status.tokens_in_flight) == (4000 - begun.num_tokens, 0)

    on_workers(story, worker_named("leaving"), worker_named("staying", ScriptedEngine()))
