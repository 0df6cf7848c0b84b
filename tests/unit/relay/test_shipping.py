"""What the job's directory has is sent on; how a job has ended does not wait for thousands of samples."""

from __future__ import annotations

import asyncio
from pathlib import Path

from rlhf_cluster.relay.link import Link
from rlhf_cluster.relay.shipping import Shipping
from rlhf_cluster.wire.relay import Registered

from .stand_in import Asked, Said, StandIn

NUM_FILES = 40


def drained(stand_in: StandIn, job_dir: Path, *, samples_s: float) -> list[str]:
    """Method and path of everything that was sent."""
    stand_in.says = lambda asked: Said(204) if asked.method == "PUT" else Said(200, {"num_entries": 0})
    registered = Registered(
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

    async def whole() -> None:
        async with Link(stand_in.url, token="secret", num_tries=1) as link:
            await Shipping(job_dir, link, registered).drain(samples_s=samples_s)

    asyncio.run(whole())
    return [sent(asked) for asked in stand_in.asked]


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
