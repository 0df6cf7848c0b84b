"""The pool on a real private Ray: processes that are killed, stopped or stuck are seen, explained and replaced."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import pytest

from rlhf_cluster.driver.clock import SystemClock
from rlhf_cluster.errors import RoleDied, RoleHung
from rlhf_cluster.flow.restarts import RestartBudget
from rlhf_cluster.runtime.base import open_runtime
from rlhf_cluster.runtime.host import last_log_lines
from rlhf_cluster.runtime.pool import Pool
from rlhf_cluster.runtime.pool_waits import PoolBounds
from rlhf_cluster.runtime.spec import RoleSpec
from rlhf_cluster.runtime.watch import watched
from rlhf_cluster.testing import make_group, make_job

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
    """A private cluster that ends with this module."""
    opening = open_runtime(make_job(["runtime=ray", "ray.num_cpus=8", "ray.object_store_gib=0.1"]))
    runtime = loop.run_until_complete(opening.__aenter__())
    yield runtime
    loop.run_until_complete(opening.__aexit__(None, None, None))


@pytest.fixture
def call(loop):
    return lambda answer: loop.run_until_complete(asyncio.wait_for(answer, BOUND_S))


def spec_of(number: int, *, role: str = "reward server", log_dir: Path | None = None, **changed) -> RoleSpec:
    spec = RoleSpec(
        role=role,
        worker_id=f"fragile-{number}",
        factory="fragile_role:Fragile",
        arguments={},
        cpus=1,
        gpus=0,
        environment={"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])},
        log_dir=log_dir,
    )
    return replace(spec, **changed)


def make_pool(runtime, events: list, *, spares: int = 0, max_restarts: int = 5, make_spec=spec_of) -> Pool:
    return Pool(
        "reward server",
        make_spec,
        runtime,
        size=1,
        spares=spares,
        adopts=False,
        budget=RestartBudget(max_restarts=max_restarts, window_s=600, backoff_s=0.1, max_backoff_s=1),
        bounds=PoolBounds(start_s=BOUND_S, close_s=5),
        clock=SystemClock(),
        emit=events.append,
    )


async def until(pool: Pool, condition) -> None:
    while not condition():
        pool.changed.clear()
        await pool.changed.wait()


async def load_is(handle, num_in_flight: int) -> None:
    for _ in range(1000):
        if (await handle.status()).num_in_flight == num_in_flight:
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"num_in_flight never became {num_in_flight}")


def groups_saying(text: str) -> list:
    group = make_group([2, 3])
    return [replace(group, prompt=replace(group.prompt, text=text))]


def test_a_killed_replica_is_seen_and_replaced_and_its_last_words_are_the_reason(call, cluster, tmp_path):
    events = []

    async def scenario() -> None:
        pool = make_pool(cluster, events, make_spec=partial(spec_of, log_dir=tmp_path))
        await pool.start()
        handle = pool.handles()["fragile-0"]
        with pytest.raises(RoleDied) as raised:
            await handle.score(groups_saying("die telling"))
        pool.lost("fragile-0", raised.value)
        await until(pool, lambda: "fragile-1" in pool.handles())
        assert (await pool.handles()["fragile-1"].status()).process_id > 0
        view = pool.view()
        await pool.aclose()
        assert [(member.worker_id, member.state) for member in view.members] == [
            ("fragile-1", "serving"),
            ("fragile-0", "lost"),
        ]

    call(scenario())
    (lost,) = [event for event in events if event.state == "lost"]
    # Whoever sees it first tells it: the call that was under way, or the pool that watches the process.
    assert re.match("reward server fragile-0 died during (score|serving)", lost.reason)
    assert "    the last words\n    and some from C" in lost.reason


def test_kill_9_is_seen_at_once_and_a_spare_serves_at_once(call, cluster):
    async def scenario() -> None:
        pool = make_pool(cluster, [], spares=1)
        await pool.start()
        await until(pool, lambda: len(pool.view().members) == 2 and pool.view().members[1].state == "spare")
        handle = pool.handles()["fragile-0"]
        process_id = (await handle.status()).process_id
        work = asyncio.ensure_future(handle.score(groups_saying("hang")))
        await asyncio.sleep(0.3)
        os.kill(process_id, signal.SIGKILL)
        with pytest.raises(RoleDied) as raised:
            await work
        pool.lost("fragile-0", raised.value)
        assert list(pool.handles()) == ["fragile-1"], "without waiting for anything"
        await until(pool, lambda: [member.state for member in pool.view().members[:2]] == ["serving", "spare"])
        await pool.aclose()

    call(scenario())


def test_a_stopped_process_is_found_by_its_silence_and_replaced(call, cluster):
    async def scenario() -> None:
        pool = make_pool(cluster, [])
        await pool.start()
        handle = pool.handles()["fragile-0"]
        os.kill((await handle.status()).process_id, signal.SIGSTOP)
        with pytest.raises(RoleHung, match=r"fragile-0 has not told its status for 0.5 s while scoring") as raised:
            await watched(
                handle.score(groups_saying("hang")),
                handle=handle,
                stall_s=BOUND_S,
                unresponsive_s=0.5,
                poll_s=0.2,
                role="reward server",
                worker_id="fragile-0",
                activity="scoring",
                counts_tokens=False,
            )
        pool.lost("fragile-0", raised.value)
        await until(pool, lambda: "fragile-1" in pool.handles())
        await pool.aclose()

    call(scenario())


def test_a_hung_role_whose_process_answers_says_where_its_stacks_are(call, cluster, tmp_path):
    async def scenario() -> None:
        handle = await cluster.open(spec_of(0, log_dir=tmp_path))
        with pytest.raises(RoleHung, match=r"no progress .* stacks of fragile-0, process \d+; also in .*fragile-0.log"):
            await watched(
                handle.score(groups_saying("hang")),
                handle=handle,
                stall_s=0.5,
                unresponsive_s=BOUND_S,
                poll_s=0.2,
                role="reward server",
                worker_id="fragile-0",
                activity="scoring",
                counts_tokens=True,
            )
        handle.kill()

    call(scenario())
    assert "print_stack" in "\n".join(last_log_lines(tmp_path, "fragile-0", 200))


def test_a_process_whose_event_loop_is_blocked_writes_its_stacks_by_itself(call, cluster, tmp_path):
    import ray

    from rlhf_cluster.runtime.handles import HANDLES
    from rlhf_cluster.runtime.host import RoleHost

    spec = spec_of(0, log_dir=tmp_path)
    environment = {"env_vars": dict(spec.environment)}
    actor = ray.remote(RoleHost).options(runtime_env=environment).remote(spec, blocked_s=0.5)
    handle = HANDLES["reward server"](actor, role="reward server", worker_id="fragile-0")
    call(handle.score(groups_saying("hold the GIL")))
    handle.kill()
    log = (tmp_path / "fragile-0.log").read_text()
    assert "Timeout" in log
    assert "fragile_role.py" in log


def test_a_stream_that_nobody_reads_on_ends_in_the_role_too(call, cluster):
    async def scenario() -> None:
        handle = await cluster.open(spec_of(0, role="rollout worker"))
        async with aclosing(handle.run([])) as stream:
            async for number in stream:
                if number == 2:
                    break
            assert (await handle.status()).num_in_flight == 1
        await load_is(handle, 0)

        async def read() -> None:
            async for _ in handle.run([]):
                pass

        reading = asyncio.create_task(read())
        await load_is(handle, 1)
        reading.cancel()
        await asyncio.wait([reading])
        await load_is(handle, 0)
        handle.kill()

    call(scenario())


def test_out_of_memory_in_a_role_is_a_death(call, cluster):
    handle = call(cluster.open(spec_of(0)))
    with pytest.raises(RoleDied, match="ran out of memory in score: MemoryError: no more"):
        call(handle.score(groups_saying("eat all memory")))
    handle.kill()


def test_a_spent_budget_names_the_culprit_and_its_last_lines(call, cluster, tmp_path):
    async def scenario() -> Pool:
        pool = make_pool(cluster, [], max_restarts=0, make_spec=partial(spec_of, log_dir=tmp_path))
        await pool.start()
        with pytest.raises(RoleDied) as raised:
            await pool.handles()["fragile-0"].score(groups_saying("die telling"))
        pool.lost("fragile-0", raised.value)
        await pool.aclose()
        return pool

    failure = call(scenario()).failure
    assert failure is not None
    assert failure.worker_id == "fragile-0"
    assert "0 replacements within 600 s are spent" in str(failure)
    assert str(failure).endswith("the last words\n    and some from C")


def test_a_replica_that_no_node_can_hold_is_pending_with_the_reason(call, cluster):
    async def scenario() -> None:
        events = []
        pool = make_pool(cluster, events, make_spec=lambda number: spec_of(number, cpus=64 if number else 1))
        await pool.start()
        pool.resize(2)
        await until(pool, lambda: any(event.reason for event in events))
        (member,) = [member for member in pool.view().members if member.state == "pending"]
        assert member.reason == "wants 64 CPUs; the cluster has no node with so many, the largest has 8 CPUs"
        pool.resize(1)
        assert [member.state for member in pool.view().members] == ["serving"]
        await pool.aclose()

    call(scenario())
