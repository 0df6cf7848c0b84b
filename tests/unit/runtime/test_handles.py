"""Handles on a real private Ray: what roles answer and raise arrives as it is, and a dead process is named."""

from __future__ import annotations

import asyncio
import inspect
import os
import signal
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from rlhf_cluster.errors import CannotFit, ModelError, NotServing, RoleDied, RoleError, RoleTimeout, StaleVersion
from rlhf_cluster.learner.role import LearnerRole
from rlhf_cluster.records import LogitProbe, Prompt, RolloutGroup, RolloutRequest, Sampling, WeightHandle
from rlhf_cluster.reference.scorer import ReferenceScorer
from rlhf_cluster.rewards.server import RewardServer
from rlhf_cluster.rollout.worker import RolloutWorker
from rlhf_cluster.runtime.base import open_runtime
from rlhf_cluster.runtime.bounds import within
from rlhf_cluster.runtime.placement import reservations
from rlhf_cluster.runtime.spec import JobSpecs, RoleSpec
from rlhf_cluster.testing import make_group, make_job, save_tiny_model

if find_spec("ray") is None:  # Not imported here: it reads the environment that `open_runtime` prepares.
    pytest.skip("ray is not installed", allow_module_level=True)
BOUND_S = 60.0


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
def worker_spec(cluster, tmp_path_factory) -> RoleSpec:
    """A rollout worker on the scripted engine, with weights by the object store."""
    from rlhf_cluster.runtime.object_store import ObjectStoreTransport

    model = tmp_path_factory.mktemp("model")
    save_tiny_model(model)
    (model / "tokenizer.json").write_text("{}")
    job = make_job([f"model={model}", "runtime=ray", "rollout.engine.token_s=0.002", "rollout.engine.spread=1.0"])
    specs = JobSpecs(
        job=job,
        epoch=0,
        transport=ObjectStoreTransport(),
        probe_token_ids=np.zeros(1, np.int32),
        log_dir=tmp_path_factory.mktemp("logs"),
    )
    return specs.rollout(0)


@pytest.fixture(scope="module")
def worker(loop, cluster, worker_spec):
    """The handle of one in an actor."""
    handle = loop.run_until_complete(cluster.open(worker_spec))
    loop.run_until_complete(asyncio.wait_for(handle.start(), BOUND_S))
    return handle


@pytest.fixture(scope="module")
def publish(cluster):
    """Publishes a version into the object store from this process, as a learner would; returns (handle, transport)."""
    import torch

    from rlhf_cluster.runtime.object_store import ObjectStoreTransport
    from rlhf_cluster.weights.flat import flatten

    transport = ObjectStoreTransport()

    def put(version: int) -> WeightHandle:
        manifest, buffer = flatten(
            [("w", torch.full((1 << 16,), float(version)))], version=version, dtype=torch.float32
        )
        probe = LogitProbe(token_ids=np.zeros(1, np.int32), logprobs=np.zeros(0, np.float32), tolerance=1e-3)
        return WeightHandle(manifest=manifest, location=transport.publish(manifest, buffer), probe=probe)

    put.transport = transport
    return put


def rollout_requests(num: int = 3, *, max_new_tokens: int = 6) -> list[RolloutRequest]:
    return [
        RolloutRequest(
            request_id=number,
            prompt=Prompt(prompt_id=f"{number}/0", text="", token_ids=np.array([2, number], np.int32)),
            num_completions=2,
            sampling=Sampling(max_new_tokens=max_new_tokens),
            seed=number,
        )
        for number in range(num)
    ]


def test_a_handle_has_all_that_can_be_asked_of_the_role_behind_it(cluster):
    from rlhf_cluster.runtime.handles import HANDLES

    behind = {
        "rollout worker": RolloutWorker,
        "reward server": RewardServer,
        "reference scorer": ReferenceScorer,
        "learner": LearnerRole,
    }
    for role, handle in HANDLES.items():
        asked = {name: of for name, of in vars(behind[role]).items() if inspect.isfunction(of) and name[0] != "_"}
        for name, of in asked.items():
            assert set(inspect.signature(of).parameters) == set(inspect.signature(getattr(handle, name)).parameters), (
                name
            )


async def collect(worker) -> list:
    return [group async for message in worker.run(rollout_requests()) for group in message]


def test_errors_of_a_role_arrive_with_their_type_and_fields(call, worker):
    with pytest.raises(NotServing, match="no weight version was adopted yet") as raised:
        call(collect(worker))
    assert (raised.value.role, raised.value.worker_id) == ("rollout worker", "rollout-0")


def test_groups_stream_back_as_from_the_object_itself(call, worker, publish):
    adopted = call(worker.adopt(publish(1)))
    assert (adopted.version, adopted.num_held_tensors) == (1, 1)
    groups = call(collect(worker))
    assert sorted(group.request_id for group in groups) == [0, 1, 2]
    assert {group.worker_id for group in groups} == {"rollout-0"}
    assert all((group.versions == 1).all() for group in groups)


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
    kept = publish.transport._kept.clear()
    assert kept == [second.location, third.location]
    assert first.location not in kept


@pytest.fixture
def fragile(call, cluster):
    """Opens the role of `fragile_role.py` in an actor of its own."""

    def open_one(**arguments):
        spec = RoleSpec(
            role="reward server",
            worker_id="reward-9",
            factory="fragile_role:Fragile",
            arguments=arguments,
            cpus=0,
            gpus=0,
            environment={"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])},
        )
        return call(cluster.open(spec))

    return open_one


def groups_saying(text: str) -> list[RolloutGroup]:
    group = make_group([2, 3])
    return [replace(group, prompt=replace(group.prompt, text=text))]


def test_our_own_errors_keep_every_field_and_any_other_names_the_role_and_the_method(call, fragile):
    role = fragile()
    with pytest.raises(RoleTimeout, match="took too long") as raised:
        call(role.score(groups_saying("raise one of ours")))
    assert (raised.value.role, raised.value.worker_id, raised.value.activity) == ("judge", "judge-1", "judging")
    with pytest.raises(RoleError, match=r"reward server reward-9 failed in score: .*a bug of ours") as raised:
        call(role.score(groups_saying("raise a bug")))
    assert type(raised.value) is RoleError
    assert call(role.status()).process_id > 0, "an error is no death"


def test_a_role_that_hangs_still_tells_its_status_and_is_named_by_the_bound(call, fragile):
    role = fragile()
    call(role.status())

    async def both():
        hanging = within(
            3.0, role.score(groups_saying("hang")), role="reward server", worker_id="reward-9", activity="scoring"
        )
        return await asyncio.gather(hanging, role.status(), return_exceptions=True)

    timeout, status = call(both())
    assert isinstance(timeout, RoleTimeout)
    assert status.process_id > 0


def test_a_role_with_many_calls_under_way_still_tells_its_status(call, fragile):
    role = fragile()
    where = {"role": "reward server", "worker_id": "reward-9"}

    async def all_of_them():
        hanging = [asyncio.ensure_future(role.score(groups_saying("hang"))) for _ in range(100)]
        await asyncio.wait(hanging, timeout=0.1)
        status = await within(20.0, role.status(), **where, activity="telling its status")
        role.kill()
        await asyncio.gather(*hanging, return_exceptions=True)
        return status

    assert call(all_of_them()).process_id > 0


@pytest.mark.parametrize("way", ["exit", "kill -9", "ray.kill"])
def test_a_process_that_is_gone_is_named_with_what_it_was_doing(call, fragile, way):
    role = fragile()
    process_id = call(role.status()).process_id

    async def die():
        if way == "exit":
            return await role.score(groups_saying("die"))
        answer = asyncio.ensure_future(role.score(groups_saying("hang")))
        await asyncio.sleep(0.2)
        os.kill(process_id, signal.SIGKILL) if way == "kill -9" else role.kill()
        return await answer

    with pytest.raises(RoleDied, match="reward server reward-9 died during score") as raised:
        call(die())
    assert (raised.value.role, raised.value.worker_id, raised.value.activity) == ("reward server", "reward-9", "score")
    assert "\n" not in str(raised.value), "one line"
    with pytest.raises(RoleDied):
        call(role.status())


def test_a_worker_that_dies_while_it_streams_ends_the_stream(call, cluster, publish, worker_spec):
    handle = call(cluster.open(replace(worker_spec, worker_id="rollout-5")))
    call(handle.adopt(publish(1)))
    process_id = call(handle.status()).process_id
    # One is done at once, and the others would be after twenty seconds: death cannot come too late.
    requests = [*rollout_requests(1), *rollout_requests(8, max_new_tokens=10_000)[1:]]

    async def read() -> None:
        async for _ in handle.run(requests):
            os.kill(process_id, signal.SIGKILL)

    with pytest.raises(RoleDied, match="rollout worker rollout-5 died during run"):
        call(read())


class Unreachable:
    """In the place of an actor: every call fails as Ray lets it fail."""

    def __init__(self, error: Exception) -> None:
        self.call = self
        self.error = error

    async def remote(self, *arguments: object) -> None:
        raise self.error


def test_whatever_type_ray_has_for_a_death_it_is_one_and_a_timeout_is_a_timeout(call, cluster):
    from ray import exceptions

    from rlhf_cluster.runtime.handles import RemoteRewardServer

    def status(error: Exception):
        return call(RemoteRewardServer(Unreachable(error), role="reward server", worker_id="reward-9").status())

    deaths = [
        exceptions.ActorDiedError(),
        exceptions.ActorUnavailableError("restarting", b"0" * 16),
        exceptions.OutOfMemoryError("low on memory"),
        exceptions.NodeDiedError("the node is gone"),
        exceptions.ObjectLostError("00" * 28, "", ""),
        exceptions.OwnerDiedError("00" * 28, "", ""),
        exceptions.WorkerCrashedError(),
    ]
    for death in deaths:
        with pytest.raises(RoleDied, match="reward server reward-9 died during status"):
            status(death)
    with pytest.raises(RoleTimeout, match="reward-9 did not answer status in time"):
        status(exceptions.GetTimeoutError("10 s"))


def test_a_role_that_cannot_be_built_fails_with_its_own_error(call, fragile):
    with pytest.raises(ModelError, match="that is no model"):
        call(fragile(mood="no model").status())


def test_a_private_cluster_has_room_for_spares_and_for_scaling_out(cluster):
    from rlhf_cluster.runtime.ray import ELASTIC_WORKERS, _private_cpus

    small = make_job(["runtime=ray", "rollout.num_workers=2", "rollout.cpus=3"])
    warm = make_job(["runtime=ray", "rollout.num_workers=2", "rollout.cpus=3", "rollout.spares=1", "learner.cpus=2"])
    assert _private_cpus(small) == reservations(small, spares=False)["CPU"] + 3 * ELASTIC_WORKERS
    assert _private_cpus(warm) == reservations(warm, spares=False)["CPU"] + 3 * (ELASTIC_WORKERS + 1)
    scaled = make_job(["runtime=ray", "rollout.num_workers=2", f"autoscale.max_workers={2 + ELASTIC_WORKERS + 5}"])
    assert _private_cpus(scaled) == reservations(scaled, spares=False)["CPU"] + ELASTIC_WORKERS + 5


def test_a_job_that_can_never_fit_the_cluster_is_refused(cluster):
    from rlhf_cluster.runtime.ray import _refuse_what_never_fits

    job = make_job(["runtime=ray", "learner.cpus=100", "rollout.gpus=1"])
    with pytest.raises(CannotFit, match=r"the roles reserve 102 CPUs and the Ray cluster has 8"):
        _refuse_what_never_fits(job, {"CPU": 8})
    with pytest.raises(CannotFit, match=r"reserve 1 GPU and the Ray cluster has 0"):
        _refuse_what_never_fits(job, {"CPU": 200})
    job = make_job(["runtime=ray", "rollout.num_workers=2", "rollout.resources.gold=1"])
    with pytest.raises(CannotFit, match=r"reserve 2 gold and the Ray cluster has 1: .* or resources\.gold per role"):
        _refuse_what_never_fits(job, {"CPU": 8, "gold": 1})
