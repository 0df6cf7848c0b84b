"""Shipped test doubles: a tiny real model, rollout groups by hand, and a clock that stands still. For outsiders too."""

from rlhf_cluster.testing.clock import FakeClock
from rlhf_cluster.testing.groups import make_group
from rlhf_cluster.testing.models import save_tiny_model

__all__ = ["FakeClock", "make_group", "save_tiny_model"]
