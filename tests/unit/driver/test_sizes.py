"""What was wanted last, as a file: read whole or told about, and obeyed by the next driver. Virtual time."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf_cluster.driver.sizes import FILE_NAME, Bounds, Desired, read_desired, sizes_of
from rlhf_cluster.errors import ConfigError
from rlhf_cluster.testing import make_job
from rlhf_cluster.testing.fleet import Pace, SimulatedRuntime

JOB = ["train.num_steps=100", "rollout.num_workers=2", "train.prompts_per_step=4"]


def write(job_dir: Path, content: str | bytes) -> None:
    path = job_dir / FILE_NAME
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def test_where_nobody_asked_for_anything_nothing_is_wanted(tmp_path):
    assert read_desired(tmp_path) == {}
    assert sizes_of({}) == {}


@pytest.mark.parametrize(
    ("pool", "words"),
    [
        ({"role": "learner", "num_workers": 2}, "role = 'learner' is not one of rollout, reward, reference"),
        ({"role": "rollout", "num_workers": 0}, "num_workers = 0 of rollout has to be at least 1"),
        ({"role": "rollout", "num_workers": "2"}, "has to be a whole number"),
        ({"role": "rollout", "num_workers": 2, "mode": "car"}, "mode = 'car' of rollout is neither manual nor auto"),
        ({"role": "reward", "num_workers": 2, "mode": "auto"}, "scale reward by hand"),
        ({"role": "rollout", "num_workers": 2, "mode": "auto", "min_workers": 3, "max_workers": 2}, "min_workers = 3"),
    ],
)
def test_what_makes_no_sense_is_named(tmp_path, pool, words):
    write(tmp_path, json.dumps({"pools": [pool]}))
    with pytest.raises(ConfigError) as refusal:
        read_desired(tmp_path)
    assert str(refusal.value).startswith("control/desired.json does not say how many workers are wanted: ")
    assert words in str(refusal.value)


@given(content=st.binary(max_size=60))
def test_no_bytes_in_its_place_are_taken_for_sizes(tmp_path_factory, content):
    job_dir = tmp_path_factory.mktemp("job")
    write(job_dir, content)
    with pytest.raises(ConfigError):
        read_desired(job_dir)


def test_a_file_of_a_newer_version_is_read_as_far_as_it_is_known(tmp_path):
    write(tmp_path, json.dumps({"pools": [{"role": "reward", "num_workers": 2, "hue": "red"}], "moons": 2}))
    assert read_desired(tmp_path) == {"reward": Desired(role="reward", num_workers=2)}


def begin(made: Any, after_s: float = 30.0) -> tuple[dict[str, int], Bounds | None]:
    """Workers at work by role some time after the start, and the policy's bounds."""

    async def act(driver: Any, roles: Any) -> tuple[dict[str, int], Bounds | None]:
        training = asyncio.create_task(driver.run(made.stop))
        await asyncio.sleep(after_s)
        there = {name: len(pool.handles()) for name, pool in roles.pools.items()}
        made.stop.set()
        await training
        return there, driver.pacing.sizes.bounds

    return made.play(act)


def ask(made: Any, deed: Any) -> None:
    async def act(driver: Any, roles: Any) -> None:
        deed(driver.pacing.sizes)

    made.play(act)


def test_the_next_driver_begins_with_the_sizes_that_people_asked_for_last(stage):
    job = make_job([*JOB, "reward_server.num_workers=2"])
    made = stage(job, SimulatedRuntime())
    ask(made, lambda sizes: (sizes.by_hand("rollout", 4), sizes.by_hand("reward", 1)))
    assert begin(stage(job, SimulatedRuntime())) == ({"rollout": 4, "reward": 1}, None)


def test_a_pool_that_was_made_smaller_starts_no_more_than_that(stage):
    made = stage(make_job(JOB), SimulatedRuntime())
    ask(made, lambda sizes: sizes.by_hand("rollout", 1))
    again = stage(made.job, SimulatedRuntime())
    assert begin(again)[0]["rollout"] == 1
    assert [role.worker_id for role in again.runtime.opened if role.role == "rollout worker"] == ["rollout-0"]


def test_a_next_driver_trains_while_workers_beyond_the_job_file_wait_for_machines(stage):
    made = stage(make_job(JOB), SimulatedRuntime())
    ask(made, lambda sizes: sizes.by_hand("rollout", 4))

    class Crowded(SimulatedRuntime):
        """There is room for two rollout workers."""

        async def placed(self, handle: Any) -> None:
            if handle.worker_id in ("rollout-2", "rollout-3"):
                await asyncio.Event().wait()

    again = stage(made.job, Crowded(Pace()))
    there, _ = begin(again)
    assert there["rollout"] == 2
    assert len(again.history.steps) > 1


def test_a_policy_that_was_turned_on_is_on_for_the_next_driver(stage):
    made = stage(make_job(JOB), SimulatedRuntime())
    bounds = Bounds(min_workers=3, max_workers=5)
    ask(made, lambda sizes: sizes.by_policy("rollout", bounds))
    assert begin(stage(made.job, SimulatedRuntime()), after_s=5.0)[1] == bounds


def test_a_policy_that_was_turned_off_is_off_for_the_next_driver(stage):
    made = stage(make_job([*JOB, "autoscale.min_workers=1", "autoscale.max_workers=4"]), SimulatedRuntime())
    ask(made, lambda sizes: sizes.by_hand("rollout", 3))
    assert begin(stage(made.job, SimulatedRuntime())) == ({"rollout": 3, "reward": 1}, None)
