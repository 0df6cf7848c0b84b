"""Handles on a real private Ray: what roles answer and raise arrives as it is, and a dead process is named."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import numpy as np
import pytest

from rlhf_cluster.errors import CannotFit, ModelError, NotServing, RoleDied, RoleError, RoleTimeout, StaleVersion
from rlhf_cluster.records import Batch, Prompt, RolloutRequest, Sampling, WeightHandle
from rlhf_cluster.runtime.bounds import within
from rlhf_cluster.runtime.roles import open_runtime
from rlhf_cluster.runtime.spec import RoleSpec, rollout_spec
from rlhf_cluster.testing import make_group, make_job, save_tiny_model

pytest.importorskip("ray")
BOUND_S = 60.0
WORKER = {"role": "rollout worker", "worker_id": "rollout-0"}


@pytest.fixture(scope="module")
def loop():
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


@pytest.fixture(scope="module")
def cluster(loop):
    """A private cluster that ends with this module; it pretends to have CPUs for a few small actors."""
    job = make_job(["runtime=ray", "ray.num_cpus=8", "ray.object_store_gib=0.1"])
    opening = open_runtime(job)
    runtime = loop.run_until_complete(opening.__aenter__())
    yield runtime
    loop.run_until_complete(opening.__aexit__(None, None, None))


@pytest.fixture
def call(loop):
    return lambda answer: loop.run_until_complete(asyncio.wait_for(answer, BOUND_S))


@pytest.fixture(scope="module")
def worker(loop, cluster, tmp_path_factory):
    """A scripted rollout worker in an actor, with weights by the object store."""
    from rlhf_cluster.runtime.object_store import ObjectStoreTransport

    model = tmp_path_factory.mktemp("model")
    save_tiny_model(model)
    (model / "tokenizer.json").write_text("{}")
    job = make_job([f"model={model}", "runtime=ray"])
    handle = loop.run_until_complete(cluster.open(rollout_spec(job, number=0, transport=ObjectStoreTransport())))
    loop.run_until_complete(asyncio.wait_for(handle.start(), BOUND_S))
    return handle


@pytest.fixture(scope="module")
def publish(cluster):
    """Publishes a version into the object store from this process, as a learner would; returns (handle, transport)."""
    import torch

    from rlhf_cluster.records import LogitProbe
    from rlhf_cluster.runtime.object_store import ObjectStoreTransport
    from rlhf_cluster.weights.flat import flatten

    transport = ObjectStoreTransport()

    def put(version: int) -> WeightHandle:
        manifest, buffer = flatten([("w", torch.full((1 << 16,), float(version)))], version=version, dtype=torch.float32)
        probe = LogitProbe(token_ids=np.zeros(1, np.int32), logprobs=np.zeros(0, np.float32), tolerance=1e-3)
        return WeightHandle(manifest=manifest, location=transport.publish(manifest, buffer), probe=probe)

    put.transport = transport
    return put


def requests(num: int = 3) -> list[RolloutRequest]:
    return [
        RolloutRequest(
            request_id=number,
            prompt=Prompt(prompt_id=f"{number}/0", text="", token_ids=np.array([2, number], np.int32)),
            num_completions=2,
            sampling=Sampling(max_new_tokens=6),
            seed=number,
        )
        for number in range(num)
    ]


async def collect(worker) -> list:
    return [group async for message in worker.run(requests()) for group in message]


def test_errors_of_a_role_arrive_with_their_type_and_fields(call, worker):
    with pytest.raises(NotServing, match="no weight version was adopted yet") as raised:
        call(collect(worker))
    assert (raised.value.role, raised.value.worker_id) == ("rollout worker", "rollout-0")


def test_groups_stream_back_as_from_the_object_itself(call, worker, publish):
    from rlhf_cluster.testing import scripted_worker

    adopted = call(worker.adopt(publish(1)))
    assert (adopted.version, adopted.num_held_tensors) == (1, 1)
    groups = call(collect(worker))
    assert sorted(group.request_id for group in groups) == [0, 1, 2]
    assert {group.worker_id for group in groups} == {"rollout-0"}
    assert all((group.versions == 1).all() for group in groups)
    assert scripted_worker().worker_id == "rollout-0"


def test_a_refused_version_arrives_as_the_weight_error_it_is(call, worker, publish):
    call(worker.adopt(publish(3)))
    with pytest.raises(StaleVersion, match="has served weights version 3 and was handed 2"):
        call(worker.adopt(publish(2)))
    assert call(worker.status()).state == "unverified"
    call(worker.adopt(publish(4)))
    assert call(worker.status()).version == 4


def test_status_tells_the_actors_own_process(call, worker):
    status = call(worker.status())
    assert status.process_id not in (0, os.getpid())
    assert status.worker_id == "rollout-0"


def test_weights_in_the_object_store_are_mapped_read_only_without_a_copy(publish):
    handle = publish(7)
    one, other = publish.transport.fetch(handle), publish.transport.fetch(handle)
    assert not one.flags.writeable
    assert one.ctypes.data == other.ctypes.data, "both map the same memory"
    assert len(one) == handle.manifest.num_bytes


def test_the_two_newest_versions_stay_in_the_object_store(publish):
    first, second, third = publish(10), publish(11), publish(12)
    kept = publish.transport._kept
    assert kept == [second.location, third.location]
    assert first.location not in kept


class Fragile:
    """A role that fails in the ways that roles fail. Lives in the actor."""

    def __init__(self, mood: str = "") -> None:
        if mood == "no model":
            raise ModelError("that is no model")

    async def start(self) -> None:
        pass

    async def status(self) -> int:
        return os.getpid()

    async def score(self, groups) -> None:
        activity = groups[0].prompt.text
        if activity == "typed":
            raise RoleTimeout("took too long", role="judge", worker_id="judge-1", activity="judging")
        if activity == "bug":
            raise ZeroDivisionError("a bug of ours")
        if activity == "hang":
            await asyncio.Event().wait()
        os._exit(1)

    async def close(self) -> None:
        pass


@pytest.fixture
def fragile(call, cluster):
    def open_one(**arguments):
        spec = RoleSpec(
            role="reward server",
            worker_id="reward-9",
            factory=f"{__name__}:Fragile",
            arguments=arguments,
            cpus=1,
            gpus=0,
            environment={"PYTHONPATH": str(Path(__file__).parent)},
        )
        return call(cluster.open(spec))

    return open_one


def groups_saying(text: str):
    from dataclasses import replace

    group = make_group([2, 3])
    return [replace(group, prompt=replace(group.prompt, text=text))]
