"""A job that learns from data and generates nothing has no rollout workers: nowhere, and it says so."""

from __future__ import annotations

import pytest

from rlhf_cluster.driver.claim import Claim
from rlhf_cluster.driver.clock import SystemClock
from rlhf_cluster.driver.sizes import Sizes
from rlhf_cluster.errors import ConfigError
from rlhf_cluster.runtime.placement import reservations
from rlhf_cluster.runtime.roles import make_roles
from rlhf_cluster.service.store.pools import _sizes
from rlhf_cluster.testing import BareSpecs, make_job
from rlhf_cluster.testing.fleet import SimulatedRuntime

DPO = ["algorithm.type=dpo", "reference.num_workers=2"]
EVALUATED = [*DPO, 'data.eval={type="procedural", name="word_world", split="eval"}']


def made(overrides):
    job = make_job(overrides)
    return job, make_roles(SimulatedRuntime(), job, BareSpecs(), clock=SystemClock(), emit=lambda event: None)


@pytest.mark.parametrize(
    ("overrides", "pools"),
    [
        (DPO, {"reference"}),
        (["algorithm.type=reward_model"], set()),
        (["algorithm.type=sft"], set()),
        (EVALUATED, {"rollout", "reward", "reference"}),
        ([*EVALUATED, "rewards=[]"], {"reference"}),
    ],
    ids=["dpo", "reward_model", "sft", "evaluated by answers", "evaluated by loss"],
)
def test_roles_plan_and_service_agree_on_what_a_job_from_data_has(overrides, pools):
    job, roles = made(overrides)
    assert set(roles.pools) == pools
    assert set(_sizes(job)) == pools | {"learner"}
    per_role = {"rollout": job.rollout, "reward": job.reward_server, "reference": job.reference}
    cpus = sum(per_role[name].cpus * per_role[name].num_workers for name in pools) + job.learner.cpus
    assert reservations(job, spares=False)["CPU"] == cpus


@pytest.mark.parametrize(
    ("overrides", "has"),
    [(DPO, "it has reference"), (["algorithm.type=sft"], "it has a learner alone, of a fixed size")],
    ids=["dpo", "sft"],
)
def test_scaling_what_the_job_does_not_have_is_refused_with_what_it_has(tmp_path, overrides, has):
    job, roles = made(overrides)
    sizes = Sizes(job, roles.pools, job_dir=tmp_path, claim=Claim.take(tmp_path), desired={})
    with pytest.raises(ConfigError, match=f"role 'rollout' cannot be scaled in this job.*{has}"):
        sizes.by_hand("rollout", 3)
