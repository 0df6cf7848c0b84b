"""The local runtime: roles of a job in this process, started in turn, closed whatever happens."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import numpy as np
import pytest

from rlhf_cluster.driver.clock import SystemClock
from rlhf_cluster.errors import ModelError, RoleTimeout
from rlhf_cluster.rollout.worker import RolloutWorker
from rlhf_cluster.runtime.base import open_runtime
from rlhf_cluster.runtime.local import LocalRuntime
from rlhf_cluster.runtime.roles import open_roles
from rlhf_cluster.runtime.spec import JobSpecs, RoleSpec, open_transport, threads_environment
from rlhf_cluster.testing import make_job
from rlhf_cluster.weights.filesystem import FilesystemTransport

PROBE = np.arange(2, 10, dtype=np.int32)


@pytest.fixture(autouse=True)
def _models(word_world_home, monkeypatch):
    monkeypatch.setenv("RLHF_CLUSTER_HOME", str(word_world_home))


def specs_of(job, job_dir) -> JobSpecs:
    transport = open_transport(job, job_dir=job_dir)
    return JobSpecs(job=job, epoch=0, transport=transport, probe_token_ids=PROBE, log_dir=None)


def with_roles(job, job_dir, act):
    async def whole():
        async with (
            open_runtime(job) as runtime,
            open_roles(runtime, job, specs_of(job, job_dir), clock=SystemClock()) as roles,
        ):
            return await act(roles)

    return asyncio.run(whole())


def test_the_handle_is_the_object_and_every_role_is_started(tmp_path):
    job = make_job(["rollout.num_workers=2", "algorithm.kl_coef=0.1"])

    async def look(roles):
        workers = roles.rollout.started()
        assert all(type(worker) is RolloutWorker for worker in workers.values())
        replicas = {**workers, **roles.reward.handles(), **roles.reference.handles(), **roles.learner.members}
        statuses = [await role.status() for role in replicas.values()]
        return [(status.worker_id, status.process_id) for status in statuses]

    told = with_roles(job, tmp_path, look)
    assert [name for name, _ in told] == ["rollout-0", "rollout-1", "reward-0", "reference-0", "learner-0"]
    assert {process_id for _, process_id in told} == {os.getpid()}


def test_weights_go_from_the_learner_to_every_worker_in_memory_or_by_file(tmp_path):
    async def hand_over(roles):
        handle = await roles.learner.group.publish()
        adopted = [await worker.adopt(handle) for worker in roles.rollout.started().values()]
        return handle, adopted

    for transport in ("memory", "filesystem"):
        job = make_job(["rollout.engine.type=transformers", "learner.precision=fp32", f"weights.transport={transport}"])
        handle, [adopted] = with_roles(job, tmp_path, hand_over)
        assert adopted.fingerprint == handle.manifest.fingerprint
        assert adopted.probe_gap < 1e-4


def test_roles_are_closed_when_the_work_fails(tmp_path):
    kept = []

    async def fail(roles):
        kept.extend(roles.rollout.started().values())
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        with_roles(make_job(), tmp_path, fail)
    assert asyncio.run(kept[0].status()).state == "closed"


def test_a_role_that_cannot_start_fails_with_its_own_error_and_leaves_no_warning(tmp_path, recwarn):
    broken = tmp_path / "model"
    broken.mkdir()
    for name in ("config.json", "tokenizer.json"):
        (broken / name).write_text("{}")
    (broken / "model.safetensors").write_bytes(b"")
    job = make_job(["rollout.engine.type=transformers", f"model={broken}"])
    with pytest.raises(ModelError, match=str(broken)):
        with_roles(job, tmp_path, None)
    assert not [warning for warning in recwarn if "never awaited" in str(warning.message)]


def test_a_role_that_is_too_slow_to_start_is_named(tmp_path):
    job = make_job(["rollout.engine.type=transformers", "limits.start_s=0.0001"])
    with pytest.raises(RoleTimeout, match=r"rollout-\d did not answer within 0\.0001 s while starting"):
        with_roles(job, tmp_path, None)


def test_an_environment_variable_of_the_users_goes_before_the_roles(monkeypatch):
    monkeypatch.setenv("ROLE_SET_BY_USER", "mine")
    monkeypatch.delenv("ROLE_NOT_SET", raising=False)
    spec = RoleSpec(
        role="reward server",
        worker_id="x",
        factory="builtins:dict",
        arguments={"a": 1},
        cpus=1,
        gpus=0,
        environment={"ROLE_SET_BY_USER": "theirs", "ROLE_NOT_SET": "theirs"},
    )
    assert asyncio.run(LocalRuntime().open(spec)) == {"a": 1}
    assert (os.environ["ROLE_SET_BY_USER"], os.environ.pop("ROLE_NOT_SET")) == ("mine", "theirs")


def test_specifications_name_every_replica_and_give_each_its_threads(tmp_path):
    job = make_job(["rollout.num_workers=2", "rollout.threads=3", "reward_server.num_workers=2", "algorithm.kl_coef=1"])
    make = specs_of(job, tmp_path)
    specs = [make.rollout(0), make.rollout(7), make.reward(1), make.reference(0), *make.learner(0), *make.learner(2)]
    assert [spec.worker_id for spec in specs] == [
        "rollout-0", "rollout-7", "reward-1", "reference-0", "learner-0", "learner-0.2",
    ]  # fmt: skip
    assert [spec.environment["OMP_NUM_THREADS"] for spec in specs] == ["3", "3", "1", "1", "1", "1"]
    assert threads_environment(1)["OMP_WAIT_POLICY"] == "PASSIVE"


def test_files_of_weights_lie_in_the_jobs_directory_unless_told_otherwise(tmp_path):
    by_file = make_job(["weights.transport=filesystem"])
    transport = open_transport(by_file, job_dir=tmp_path)
    assert isinstance(transport, FilesystemTransport)
    assert transport.directory == tmp_path / "weights"
    elsewhere = make_job(["weights.transport=filesystem", "weights.directory=/shared/weights"])
    # Under the job's name, so that two jobs may share the directory.
    one, other = (open_transport(elsewhere, job_dir=Path(home) / "sums-1").directory for home in ("/ann", "/bob"))
    assert one.parent.parent == other.parent.parent == Path("/shared/weights")
    assert one.parent.name.startswith("sums-1-")
    assert one != other, "two jobs never share a folder"
