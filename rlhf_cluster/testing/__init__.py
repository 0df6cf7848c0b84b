"""Shipped test doubles: a tiny real model, groups, jobs and roles by hand, a clock. Open to outsiders."""

from rlhf_cluster.testing.clock import FakeClock
from rlhf_cluster.testing.groups import make_group
from rlhf_cluster.testing.jobs import make_job
from rlhf_cluster.testing.models import save_tiny_model, save_tiny_tokenizer
from rlhf_cluster.testing.roles import (
    BareSpecs,
    FakeLearnerRank,
    FakeRewardServer,
    GivenRuntime,
    fake_roles,
    rewards_that_differ,
    scripted_worker,
)

__all__ = [
    "BareSpecs",
    "FakeClock",
    "FakeLearnerRank",
    "FakeRewardServer",
    "GivenRuntime",
    "fake_roles",
    "make_group",
    "make_job",
    "rewards_that_differ",
    "save_tiny_model",
    "save_tiny_tokenizer",
    "scripted_worker",
]
