"""The directory that an attempt makes, before any driver runs in it."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from rlhf_cluster.config.load import read_job
from rlhf_cluster.driver.sizes import FILE_NAME, read_desired, sizes_of
from rlhf_cluster.errors import ConfigError
from rlhf_cluster.relay.attempt import FAILED, _end_in_time, prepare, run_attempt
from rlhf_cluster.relay.driver_process import DriverEnd, DriverProcess
from rlhf_cluster.relay.link import Link, Refused, Superseded
from rlhf_cluster.relay.shipping import Shipping
from rlhf_cluster.testing.jobs import make_job
from rlhf_cluster.wire.relay import Registered

from .stand_in import Asked, Said, StandIn, problem

AUTO = {"num_workers": 3, "mode": "auto", "min_workers": 1, "max_workers": 4}


def registered(job_dir, config) -> Registered:
    return Registered(
        job_id="job_1",
        attempt=1,
        job_dir=str(job_dir),
        config=config,
        bundle_sha256=None,
        num_entries=0,
        sample_files=[],
        log_offsets={},
        lease_s=45.0,
    )


def config_of(*overrides: str) -> dict:
    return json.loads(make_job(overrides).model_dump_json())


def test_a_fresh_directory_can_be_resumed_as_the_job_that_was_submitted(tmp_path):
    job_dir = prepare(registered(tmp_path / "jobs" / "job_1", config_of()), ray_address=None)
    assert read_job(job_dir) == make_job()


def test_a_job_on_ray_runs_on_the_cluster_that_it_was_submitted_to(tmp_path):
    job_dir = prepare(registered(tmp_path / "job_1", config_of("runtime=ray")), ray_address="192.0.2.1:6379")
    assert read_job(job_dir).ray.address == "192.0.2.1:6379"


def test_a_local_job_stays_local(tmp_path):
    job_dir = prepare(registered(tmp_path / "job_1", config_of("runtime=local")), ray_address="192.0.2.1:6379")
    assert read_job(job_dir) == make_job(["runtime=local"])


def test_a_second_attempt_finds_its_own_settings_in_the_job_file(tmp_path):
    for address in ("192.0.2.1:6379", "192.0.2.2:6379"):
        job_dir = prepare(registered(tmp_path / "job_1", config_of("runtime=ray")), ray_address=address)
    assert read_job(job_dir).ray.address == "192.0.2.2:6379"


@pytest.mark.parametrize(
    ("former", "overrides", "begins_with"),
    [
        ({"num_workers": 2}, ["rollout.num_workers=4"], {}),
        ({"num_workers": 2}, ["autoscale.min_workers=1", "autoscale.max_workers=4"], {}),
        (AUTO, ["autoscale.min_workers=1", "autoscale.max_workers=4"], {"rollout": 3}),
        (AUTO, ["rollout.num_workers=4", "autoscale.min_workers=4", "autoscale.max_workers=6"], {}),
    ],
)
def test_an_attempt_begins_with_what_the_service_wants_whatever_the_driver_before_was_asked_for(
    tmp_path, former, overrides, begins_with
):
    (tmp_path / "control").mkdir()
    (tmp_path / FILE_NAME).write_text(json.dumps({"pools": [{"role": "rollout", **former}]}))
    prepare(registered(tmp_path, config_of(*overrides)), ray_address=None)
    assert sizes_of(read_desired(tmp_path)) == begins_with


def test_a_job_that_is_none_is_told_to_the_service_and_not_retried(tmp_path, stand_in: StandIn):
    told = registered(tmp_path / "job_1", {**config_of(), "model": 3}).model_dump()

    def says(asked: Asked) -> Said:
        return Said(200, told) if asked.path.endswith("/register") else Said(204)

    stand_in.says = says

    async def attempt() -> int:
        async with Link(stand_in.url, token="secret", num_tries=1) as link:
            return await run_attempt(link)

    with pytest.raises(ConfigError, match="model"):
        asyncio.run(attempt())
    assert [asked.path.rsplit("/", 1)[-1] for asked in stand_in.asked] == ["register", "ended"]
    said = stand_in.asked[-1].json
    assert (said["outcome"], said["exit_code"], said["may_be_retried"]) == ("failed", FAILED, False)


def test_the_lease_is_renewed_while_the_code_of_a_job_is_fetched(tmp_path, stand_in: StandIn):
    told = registered(tmp_path / "job_1", config_of()).model_dump() | {"bundle_sha256": "0" * 64}
    is_renewed = threading.Event()
    was_renewed: list[bool] = []

    def says(asked: Asked) -> Said:
        match asked.path.rpartition("/")[2]:
            case "register":
                return Said(200, told)
            case "bundle":
                was_renewed.append(is_renewed.wait(10.0))
                return problem(404, "not_found")
            case "ingest":
                is_renewed.set()
                return Said(200, {"num_entries": 0})
        return Said(204)

    stand_in.says = says

    async def attempt() -> int:
        async with Link(stand_in.url, token="secret", num_tries=1) as link:
            return await run_attempt(link)

    with pytest.raises(Refused):
        asyncio.run(attempt())
    assert was_renewed == [True]


def test_an_attempt_that_was_given_up_before_it_registered_starts_nothing(tmp_path, stand_in: StandIn):
    stand_in.says_in_turn(problem(409, "superseded"))

    async def attempt() -> int:
        async with Link(stand_in.url, token="secret", num_tries=1) as link:
            return await run_attempt(link)

    with pytest.raises(Superseded):
        asyncio.run(attempt())


def test_a_driver_that_has_told_its_end_and_does_not_exit_is_killed(tmp_path, stand_in: StandIn):
    told = registered(tmp_path / "job_1", config_of())
    end = {"event": "JobEnded", "time_s": time.time() + 60, "step": 3, "outcome": "succeeded", "message": "done"}
    line = f"print(file=open('journal.jsonl', 'w'), flush=True, end='', *[{json.dumps(end)!r} + chr(10)])"
    write = f"import time; {line}; time.sleep(600)"
    stand_in.says = lambda asked: Said(200, {"num_entries": asked.json["first_entry"] + len(asked.json["entries"])})

    async def whole() -> DriverEnd:
        told_dir = Path(told.job_dir)
        told_dir.mkdir()
        async with Link(stand_in.url, token="secret", num_tries=1) as link, asyncio.timeout(60):
            shipping = Shipping(told_dir, link, told)
            driver = await DriverProcess.start(told_dir, code_dir=told_dir, command=(sys.executable, "-c", write))
            shipped = asyncio.create_task(shipping.run())
            await _end_in_time(shipping, driver, bound_s=0.1)
            shipped.cancel()
            return await driver.wait()

    ended = asyncio.run(whole())
    assert ended.code == -signal.SIGKILL
    assert ended.report(said={"outcome": "succeeded", "message": "done"}).outcome == "succeeded"
