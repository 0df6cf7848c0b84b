"""Pools: made from a job's config, wanted by people, obeyed by its driver."""

from __future__ import annotations

import pytest

from rlhf_cluster.config.job import JobConfig
from rlhf_cluster.service.store import pools
from rlhf_cluster.service.store.database import Database


def _config(**more) -> JobConfig:
    job = {
        "name": "pools",
        "model": "word-world",
        "data": {"train": {"type": "procedural", "name": "word_world"}},
        "rollout": {"num_workers": 2},
        "rewards": [{"function": "word_world"}],
        "reward_server": {"num_workers": 3},
        "algorithm": {"type": "grpo"},
        "train": {"num_steps": 2, "prompts_per_step": 2, "completions_per_prompt": 2},
    }
    return JobConfig.model_validate({**job, **more})


@pytest.fixture
def pooled(db: Database, job_id: str) -> str:
    with db.writing() as connection:
        pools.ensure(connection, job_id, _config())
    return job_id


def test_a_job_has_the_pools_that_its_config_names(db: Database, submit):
    cases = [
        (_config(), [("rollout", 2), ("reward", 3), ("learner", 1)]),
        (
            _config(algorithm={"type": "grpo", "kl_coef": 0.1}, reference={"num_workers": 4}),
            [("rollout", 2), ("reward", 3), ("reference", 4), ("learner", 1)],
        ),
    ]
    for config, expected in cases:
        job_id = submit()
        with db.writing() as connection:
            pools.ensure(connection, job_id, config)
            assert [(row.pool, row.replicas) for row in pools.of_job(connection, job_id)] == expected


def test_a_policy_in_the_config_makes_the_rollout_pool_an_automatic_one(db: Database, job_id: str):
    with db.writing() as connection:
        pools.ensure(connection, job_id, _config(autoscale={"min_workers": 1, "max_workers": 6}))
        rollout, reward, _ = pools.of_job(connection, job_id)
    assert (rollout.mode, rollout.replicas, rollout.min_replicas, rollout.max_replicas) == ("auto", 2, 1, 6)
    assert (reward.mode, reward.min_replicas, reward.max_replicas) == ("manual", None, None)


def test_making_them_again_changes_nothing(db: Database, pooled: str):
    numbers = {"mode": "manual", "replicas": 7, "min_replicas": None, "max_replicas": None}
    with db.writing() as connection:
        pools.want(connection, pooled, "rollout", generation=1, **numbers)
        pools.ensure(connection, pooled, _config())
        assert pools.get(connection, pooled, "rollout").replicas == 7


def test_of_two_who_change_the_same_generation_one_is_told(db: Database, pooled: str):
    with db.writing() as connection:
        numbers = {"mode": "manual", "min_replicas": None, "max_replicas": None}
        wanted = pools.want(connection, pooled, "rollout", generation=1, replicas=5, **numbers)
        assert (wanted.replicas, wanted.generation, wanted.observed_generation) == (5, 2, 1)
        assert pools.want(connection, pooled, "rollout", generation=1, replicas=9, **numbers) is None
        assert pools.want(connection, pooled, "no-pool", generation=1, replicas=9, **numbers) is None
        assert pools.get(connection, pooled, "rollout").replicas == 5


def test_a_range_leaves_the_number_to_the_policy(db: Database, pooled: str):
    with db.writing() as connection:
        row = pools.want(
            connection,
            pooled,
            "rollout",
            generation=1,
            mode="auto",
            replicas=None,
            min_replicas=1,
            max_replicas=8,
        )
    assert (row.mode, row.replicas, row.min_replicas, row.max_replicas) == ("auto", 2, 1, 8)


def test_the_observed_generation_never_goes_back(db: Database, pooled: str):
    with db.writing() as connection:
        for generation in (3, 2):
            pools.observed(connection, pooled, "rollout", generation=generation)
        assert pools.get(connection, pooled, "rollout").observed_generation == 3
        assert pools.get(connection, pooled, "reward").observed_generation == 1
