"""What the policy for rollout workers says, and who waited for whom: from the driver's view to the answers."""

from __future__ import annotations

import pytest

from .answers import JOBS
from .conftest import pool_with, view_with

AUTO = {"mode": "auto", "min_workers": 1, "max_workers": 4}
TIMES = [
    {"role": "learner", "busy": 0.3, "waiting": 0.5, "adopting": 0.05, "other": 0.15},
    {"role": "rollout", "busy": 0.75, "waiting": 0.25, "adopting": 0.0, "other": 0.0},
]


@pytest.fixture
def rollout(api, submit, saw):
    """The pool of a job with these overrides, once its driver has told this of it."""

    def show(*overrides, **told):
        job_id = submit(*overrides)["job_id"]
        saw(job_id, view_with(pool_with("rollout worker", **told)))
        return api.get(f"{JOBS}/{job_id}/pools/rollout").json()

    return show


def test_a_pool_tells_what_the_policy_has_chosen_and_why(rollout):
    told = {**AUTO, "desired": 3, "reason": "grow from 2 to 3: it asks for 3", "recommended": 3}
    pool = rollout("autoscale.min_workers=1", "autoscale.max_workers=4", **told)
    assert (pool["mode"], pool["replicas"], pool["recommended"]) == ("auto", 3, 3)
    assert pool["reason"] == "grow from 2 to 3: it asks for 3"


def test_a_pool_that_is_scaled_by_hand_has_the_advice_and_the_number_that_was_asked_for(rollout):
    pool = rollout("rollout.num_workers=2", desired=1, reason="it asks for 5", recommended=5)
    assert (pool["mode"], pool["replicas"], pool["recommended"], pool["reason"]) == ("manual", 2, 5, "it asks for 5")


def test_a_policy_that_the_driver_does_not_have_yet_has_chosen_nothing(rollout):
    pool = rollout("autoscale.min_workers=1", "autoscale.max_workers=4", "rollout.num_workers=2", desired=1)
    assert (pool["mode"], pool["replicas"], pool["recommended"], pool["reason"]) == ("auto", 2, None, "")


def test_a_job_tells_in_numbers_who_waited_for_whom(api, submit, saw):
    job_id = submit()["job_id"]
    assert api.get(f"{JOBS}/{job_id}").json()["time_split"] == []
    saw(job_id, view_with(time_split=TIMES))
    assert api.get(f"{JOBS}/{job_id}").json()["time_split"] == TIMES
