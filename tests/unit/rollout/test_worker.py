"""The rollout worker on the scripted engine: what it serves, what it refuses, and how it ends."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Sequence

import numpy as np
import pytest

from rlhf_cluster.errors import (
    ConfigError,
    FingerprintMismatch,
    ManifestMismatch,
    NotServing,
    ProbeMismatch,
    PromptTooLong,
    RoleDied,
    RoleTimeout,
    StaleVersion,
    WeightsUnavailable,
)
from rlhf_cluster.records import LogitProbe, Prompt, RolloutGroup, RolloutRequest, Sampling, WeightHandle
from rlhf_cluster.rollout.engines.scripted import RunningScripted, ScriptedEngine, probe_logprobs
from rlhf_cluster.rollout.worker import RolloutWorker
from rlhf_cluster.weights import flat

torch = pytest.importorskip("torch")

PROBE = np.array([3, 1, 4, 1, 5], dtype=np.int32)


class Shelf:
    """A transport in memory: what was published lies under its version."""

    def __init__(self) -> None:
        self.buffers: dict[int, np.ndarray] = {}

    def publish(self, manifest, buffer) -> int:
        self.buffers[manifest.version] = buffer
        return manifest.version

    def fetch(self, handle: WeightHandle) -> np.ndarray:
        if handle.location not in self.buffers:
            raise WeightsUnavailable(f"version {handle.location} is gone")
        return self.buffers[handle.location]

    def close(self) -> None:
        self.buffers.clear()


class PickyEngine(ScriptedEngine):
    """A scripted engine that knows its model's shapes and precision."""

    def open(self, model_path=None, *, threads=1):
        return PickyRunning(self, clock=time)


class PickyRunning(RunningScripted):
    dtype = "float32"

    def expected_shapes(self):
        return {"weight": (4, 3), "bias": (4,)}


class CrashingEngine(ScriptedEngine):
    def open(self, model_path=None, *, threads=1):
        return CrashingRunning(self, clock=time)


class CrashingRunning(RunningScripted):
    def step(self):
        if self.tokens_generated():
            raise RuntimeError("matrix shapes do not match")
        return super().step()


class MissingEngine(ScriptedEngine):
    def open(self, model_path=None, *, threads=1):
        raise ConfigError("that engine is not installed")


class Bench:
    """A worker with its shelf, and a learner's hand to publish with."""

    def __init__(self, engine: ScriptedEngine, **options) -> None:
        self.shelf = Shelf()
        self.worker = RolloutWorker(engine, None, worker_id="rollout-0", transport=self.shelf, **options)

    def publish(self, version: int, *, shape=(4, 3), dtype=torch.float32) -> WeightHandle:
        generator = torch.Generator().manual_seed(version)
        tensors = [("weight", torch.randn(shape, generator=generator)), ("bias", torch.randn(4, generator=generator))]
        manifest, buffer = flat.flatten(tensors, version=version, dtype=dtype)
        logprobs = probe_logprobs({spec.name: spec.digest for spec in manifest.tensors}, PROBE)
        probe = LogitProbe(token_ids=PROBE, logprobs=logprobs, tolerance=1e-3)
        return WeightHandle(manifest=manifest, location=self.shelf.publish(manifest, buffer), probe=probe)

    async def collect(self, requests: Sequence[RolloutRequest]) -> dict[int, RolloutGroup]:
        return {group.request_id: group async for message in self.worker.run(requests) for group in message}

    async def until(self, condition) -> None:
        """Look at the status until it is as expected; the step thread has no event to wait for."""
        for _ in range(5000):
            if condition(await self.worker.status()):
                return
            await asyncio.sleep(0.001)
        raise AssertionError(f"never came true: {await self.worker.status()}")


def rollout_requests(num: int, *, max_new_tokens: int = 8, num_prompt_tokens: int = 3) -> list[RolloutRequest]:
    return [
        RolloutRequest(
            request_id=i,
            prompt=Prompt(prompt_id=f"{i}/0", text="", token_ids=np.arange(num_prompt_tokens, dtype=np.int32)),
            num_completions=2,
            sampling=Sampling(max_new_tokens=max_new_tokens, ignore_eos=True),
            seed=i,
        )
        for i in range(num)
    ]


def on_bench(story, engine: ScriptedEngine | None = None, **options) -> None:
    """Run `story(bench)` and close the worker."""

    async def main() -> None:
        bench = Bench(engine or PickyEngine(probe="digests"), **options)
        try:
            await story(bench)
        finally:
            await bench.worker.close()

    asyncio.run(asyncio.wait_for(main(), 30))


def test_groups_come_back_under_their_request_with_worker_and_version():
    async def story(bench):
        adopted = await bench.worker.adopt(bench.publish(4))
        assert (adopted.version, adopted.num_held_tensors, adopted.probe_gap) == (4, 2, 0.0)
        groups = await bench.collect(rollout_requests(5))
        assert groups.keys() == set(range(5))
        assert all(group.worker_id == "rollout-0" for group in groups.values())
        assert all((group.versions == 4).all() for group in groups.values())

    on_bench(story)


def test_two_runs_at_a_time_may_use_the_same_request_ids():
    async def story(bench):
        await bench.worker.adopt(bench.publish(1))
        one, other = await asyncio.gather(
            bench.collect(rollout_requests(3, max_new_tokens=5)), bench.collect(rollout_requests(3, max_new_tokens=9))
        )
        assert {int(length) for group in one.values() for length in group.lengths} == {5}
        assert {int(length) for group in other.values() for length in group.lengths} == {9}

    on_bench(story)


def test_no_requests_are_no_groups():
    async def story(bench):
        await bench.worker.adopt(bench.publish(1))
        assert await bench.collect([]) == {}

    on_bench(story)


def test_nothing_is_served_before_a_version_was_adopted():
    async def story(bench):
        with pytest.raises(NotServing, match="no weight version was adopted yet"):
            await bench.collect(rollout_requests(1))
        await bench.worker.start()
        with pytest.raises(NotServing, match="no weight version was adopted yet"):
            await bench.collect(rollout_requests(1))
        assert (await bench.worker.status()).state == "unverified"

    on_bench(story)


def altered(handle: WeightHandle, **changes) -> WeightHandle:
    return dataclasses.replace(handle, manifest=dataclasses.replace(handle.manifest, **changes))


def wrong_fingerprint(bench):
    return altered(bench.publish(5), fingerprint="0" * 32)


def wrong_bytes(bench):
    handle = bench.publish(5)
    buffer = bench.shelf.buffers[5].copy()
    buffer[7] ^= 1
    bench.shelf.buffers[5] = buffer
    return handle


def truncated_buffer(bench):
    handle = bench.publish(5)
    bench.shelf.buffers[5] = bench.shelf.buffers[5][:-64]
    return handle


def wrong_probe(bench):
    handle = bench.publish(5)
    return dataclasses.replace(handle, probe=dataclasses.replace(handle.probe, logprobs=handle.probe.logprobs - 0.01))


def probe_that_is_not_a_number(bench):
    handle = bench.publish(5)
    return dataclasses.replace(handle, probe=dataclasses.replace(handle.probe, logprobs=handle.probe.logprobs * np.nan))


def gone(bench):
    handle = bench.publish(5)
    del bench.shelf.buffers[5]
    return handle


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        (wrong_fingerprint, FingerprintMismatch),
        (wrong_bytes, FingerprintMismatch),
        (truncated_buffer, FingerprintMismatch),
        (lambda bench: bench.publish(5, shape=(3, 4)), ManifestMismatch),
        (lambda bench: bench.publish(5, dtype=torch.bfloat16), ManifestMismatch),
        (wrong_probe, ProbeMismatch),
        (probe_that_is_not_a_number, ProbeMismatch),
        (lambda bench: bench.publish(2), StaleVersion),
    ],
)
def test_a_refused_version_is_named_and_nothing_is_served_until_a_good_one(bad, error):
    async def story(bench):
        await bench.worker.adopt(bench.publish(3))
        with pytest.raises(error):
            await bench.worker.adopt(bad(bench))
        with pytest.raises(NotServing, match="was refused"):
            await bench.collect(rollout_requests(1))
        status = await bench.worker.status()
        assert (status.state, status.version) == ("unverified", -1)
        await bench.worker.adopt(bench.publish(5))
        groups = await bench.collect(rollout_requests(2))
        assert all((group.versions == 5).all() for group in groups.values())
        assert (await bench.worker.status()).version == 5

    on_bench(story)


def test_a_refusal_ends_what_is_in_flight():
    async def story(bench):
        await bench.worker.adopt(bench.publish(3))
        running = asyncio.create_task(bench.collect(rollout_requests(2, max_new_tokens=4000)))
        await bench.until(lambda status: status.num_in_flight > 0)
        with pytest.raises(ProbeMismatch):
            await bench.worker.adopt(wrong_probe(bench))
        with pytest.raises(NotServing, match="version 5 was refused"):
            await running
        assert (await bench.worker.status()).num_in_flight == 0

    on_bench(story, PickyEngine(probe="digests", token_s=0.005))


def test_a_version_that_is_gone_ends_nothing_that_is_in_flight():
    async def story(bench):
        await bench.worker.adopt(bench.publish(3))
        running = asyncio.create_task(bench.collect(rollout_requests(2, max_new_tokens=100)))
        await bench.until(lambda status: status.num_in_flight > 0)
        with pytest.raises(WeightsUnavailable):
            await bench.worker.adopt(gone(bench))
        assert all((group.versions == 3).all() for group in (await running).values())
        assert (await bench.worker.status()).version == 3

    on_bench(story, PickyEngine(probe="digests", token_s=0.005))


def test_a_good_adopt_leaves_what_is_in_flight_with_both_versions():
    async def story(bench):
        await bench.worker.adopt(bench.publish(3))
        running = asyncio.create_task(bench.collect(rollout_requests(2, max_new_tokens=60)))
        await bench.until(lambda status: status.tokens_total >= 8)
        await bench.worker.adopt(bench.publish(4))
        for group in (await running).values():
            assert set(group.versions.tolist()) == {3, 4}
            assert group.oldest_version == 3

    on_bench(story, PickyEngine(probe="digests", token_s=0.005))


def test_an_engine_without_logits_is_proven_by_its_digests_alone():
    async def story(bench):
        assert (await bench.worker.adopt(bench.publish(1))).num_held_tensors == 2

    on_bench(story, ScriptedEngine(probe="none"))


def test_a_prompt_that_is_too_long_is_refused_with_its_whole_message():
    async def story(bench):
        await bench.worker.adopt(bench.publish(1))
        with pytest.raises(PromptTooLong, match="prompt 0/0 has 64 tokens"):
            await bench.collect(rollout_requests(2, num_prompt_tokens=64))
        status = await bench.worker.status()
        assert (status.num_in_flight, status.state) == (0, "idle")
        assert len(await bench.collect(rollout_requests(2))) == 2

    on_bench(story, PickyEngine(probe="digests", max_context=64))


def test_closing_the_iterator_aborts_its_requests_and_no_others():
    async def story(bench):
        await bench.worker.adopt(bench.publish(1))
        kept = asyncio.create_task(bench.collect(rollout_requests(1, max_new_tokens=80)))
        short, long = rollout_requests(1, max_new_tokens=3)[0], rollout_requests(2, max_new_tokens=4000)[1]
        messages = bench.worker.run([short, long])
        assert [group.request_id for group in await anext(messages)] == [0]
        await messages.aclose()
        assert len(await kept) == 1
        assert (await bench.worker.status()).num_in_flight == 0

    on_bench(story, PickyEngine(probe="digests", token_s=0.002))


def test_cancelling_the_reader_aborts_its_requests():
    async def story(bench):
        await bench.worker.adopt(bench.publish(1))
        running = asyncio.create_task(bench.collect(rollout_requests(2, max_new_tokens=4000)))
        await bench.until(lambda status: status.num_in_flight > 0)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        await bench.worker.start()  # Answered between two steps, after the abort.
        assert (await bench.worker.status()).state == "idle"

    on_bench(story, PickyEngine(probe="digests", token_s=0.002))


def test_groups_that_finished_since_the_last_message_come_in_one():
    async def story(bench):
        await bench.worker.adopt(bench.publish(1))
        assert [len(message) async for message in bench.worker.run(rollout_requests(6))] == [6]

    on_bench(story)


def test_status_answers_while_a_step_is_running():
    async def story(bench):
        await bench.worker.adopt(bench.publish(1))
        running = asyncio.create_task(bench.collect(rollout_requests(1, max_new_tokens=3)))
        await bench.until(lambda status: status.state == "busy")
        asked = time.monotonic()
        status = await bench.worker.status()
        # The step sleeps for 0.3 s; the answer may not wait for it.
        assert time.monotonic() - asked < 0.1
        assert (status.num_in_flight, status.role, status.worker_id) == (1, "rollout worker", "rollout-0")
        assert status.rss_bytes > 0
        await running

    on_bench(story, PickyEngine(probe="digests", token_s=0.3))


def test_status_tells_the_start_and_the_end():
    async def story(bench):
        assert (await bench.worker.status()).state == "starting"
        await bench.worker.start()
        assert (await bench.worker.status()).state == "unverified"
        await bench.worker.close()
        assert (await bench.worker.status()).state == "closed"

    on_bench(story)


def test_an_engine_that_cannot_open_says_so_to_everyone():
    async def story(bench):
        for _ in range(2):
            with pytest.raises(ConfigError, match="not installed"):
                await bench.worker.start()
        with pytest.raises(ConfigError, match="not installed"):
            await bench.worker.adopt(bench.publish(1))

    on_bench(story, MissingEngine())


def test_a_crash_of_the_engine_reaches_every_waiter_and_every_later_call():
    async def story(bench):
        await bench.worker.adopt(bench.publish(1))
        runs = [asyncio.create_task(bench.collect(rollout_requests(1, max_new_tokens=50))) for _ in range(2)]
        for outcome in await asyncio.gather(*runs, return_exceptions=True):
            assert isinstance(outcome, RoleDied)
            assert "RuntimeError: matrix shapes do not match" in str(outcome)
        with pytest.raises(RoleDied, match="matrix shapes"):
            await bench.worker.adopt(bench.publish(2))
        assert (await bench.worker.status()).state == "closed"

    on_bench(story, CrashingEngine())


def test_an_engine_that_makes_no_token_for_too_long_is_reported():
    async def story(bench):
        await bench.worker.adopt(bench.publish(1))
        with pytest.raises(RoleTimeout, match=r"within 0\.2 s while generating for 1 prompts"):
            await bench.collect(rollout_requests(1))
        await asyncio.sleep(0.8)  # Let the sleeping step end, so that closing finds it awake.

    on_bench(story, PickyEngine(probe="digests", token_s=0.8), patience_s=0.2)


def test_closing_fails_whoever_waits_and_may_be_done_twice():
    async def story(bench):
        await bench.worker.adopt(bench.publish(1))
        running = asyncio.create_task(bench.collect(rollout_requests(1, max_new_tokens=4000)))
        await bench.until(lambda status: status.num_in_flight > 0)
        await bench.worker.close()
        with pytest.raises(RoleDied, match="was closed"):
            await running
        await bench.worker.close()
        with pytest.raises(RoleDied, match="closed"):
            await bench.worker.adopt(bench.publish(2))

    on_bench(story, PickyEngine(probe="digests", token_s=0.01))


def test_a_worker_that_never_started_can_be_closed():
    async def story(bench):
        await bench.worker.close()
        with pytest.raises(RoleDied, match="closed"):
            await bench.worker.start()

    on_bench(story)
