"""What the job's directory has is sent on; how a job has ended does not wait for thousands of samples."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

from rlhf_cluster.relay.link import Link
from rlhf_cluster.relay.shipping import Shipping
from rlhf_cluster.wire.relay import Registered

from .stand_in import Asked, Said, StandIn

NUM_FILES = 40


def drained(stand_in: StandIn, job_dir: Path, *, samples_s: float, put_status: int = 204) -> list[str]:
    """Method and path of everything that was sent."""
    stand_in.says = lambda asked: Said(put_status) if asked.method == "PUT" else Said(200, {"num_entries": 0})

    async def whole() -> None:
        async with Link(stand_in.url, token="secret", num_tries=1) as link:
            await Shipping(job_dir, link, registered(job_dir)).drain(samples_s=samples_s)

    asyncio.run(whole())
    return [sent(asked) for asked in stand_in.asked]


def registered(job_dir: Path) -> Registered:
    return Registered(
        job_id="job_1",
        attempt=1,
        job_dir=str(job_dir),
        config={},
        bundle_sha256=None,
        num_entries=0,
        sample_files=[],
        log_offsets={},
        lease_s=45.0,
    )


def sent(asked: Asked) -> str:
    return f"{asked.method} {asked.path.rpartition('/')[2]}"


def job_dir_with_samples(tmp_path: Path) -> Path:
    (tmp_path / "samples").mkdir()
    for step in range(NUM_FILES):
        (tmp_path / "samples" / f"step-{step:06d}.parquet").write_bytes(b"rows")
    return tmp_path


def test_all_samples_are_sent_each_once_and_in_order(tmp_path, stand_in):
    told = drained(stand_in, job_dir_with_samples(tmp_path), samples_s=60.0)
    assert [each for each in told if each.startswith("PUT")] == [
        f"PUT step-{step:06d}.parquet" for step in range(NUM_FILES)
    ]


def test_samples_for_which_there_is_no_time_stay_in_the_directory(tmp_path, stand_in):
    assert drained(stand_in, job_dir_with_samples(tmp_path), samples_s=0.0) == ["POST ingest"]


def test_samples_that_the_service_cannot_take_do_not_keep_the_job_from_its_end(tmp_path, stand_in):
    told = drained(stand_in, job_dir_with_samples(tmp_path), samples_s=60.0, put_status=500)
    assert told == ["POST ingest", "PUT step-000000.parquet"]


def test_the_lease_is_renewed_while_a_file_of_samples_is_on_its_way(tmp_path, stand_in):
    job_dir = job_dir_with_samples(tmp_path)
    is_under_way, is_renewed, is_there = threading.Event(), threading.Event(), threading.Event()
    was_renewed: list[bool] = []

    def says(asked: Asked) -> Said:
        if asked.method == "PUT":
            is_under_way.set()
            was_renewed.append(is_renewed.wait(10.0))
            is_there.set()
            return Said(204)
        if is_under_way.is_set():
            is_renewed.set()
        return Said(200, {"num_entries": 0})

    stand_in.says = says

    async def until_the_first_file_is_there() -> None:
        async with Link(stand_in.url, token="secret", num_tries=1) as link:
            shipping = Shipping(job_dir, link, registered(job_dir))
            work = [asyncio.create_task(each) for each in (shipping.run(), shipping.run_samples())]
            await asyncio.to_thread(is_there.wait, 30.0)
            for task in work:
                task.cancel()
            await asyncio.gather(*work, return_exceptions=True)

    asyncio.run(until_the_first_file_is_there())
    assert was_renewed[0]
