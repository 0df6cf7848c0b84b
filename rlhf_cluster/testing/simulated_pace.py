"""How long everything takes in a simulated fleet: the seconds of each call, and the long tail of generation."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from rlhf_cluster.records import RolloutRequest
from rlhf_cluster.testing.simulated_tokens import SPREAD

SecondsOf = Callable[[RolloutRequest], float]
"""How long all completions of one prompt take, from their first token on."""


def one_second(request: RolloutRequest) -> float:
    return 1.0


def lognormal(sigma: float, *, mean_s: float, cap_s: float = math.inf, seed: int = 0) -> SecondsOf:
    """`mean_s` on average before the longest are cut to `cap_s`; always the same for the same request seed."""
    normals = _normals(seed)
    location = math.log(mean_s) - sigma**2 / 2

    def seconds_of(request: RolloutRequest) -> float:
        place = ((request.seed + 1) * SPREAD >> 23) % len(normals)
        return min(cap_s, math.exp(location + sigma * normals[place]))

    return seconds_of


@lru_cache(maxsize=64)
def _normals(seed: int) -> list[float]:
    return np.random.default_rng(seed).standard_normal(1 << 14).tolist()


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """Seconds that the roles of a `SimulatedRuntime` take."""

    seconds_of: SecondsOf = one_second
    slots: int | None = None
    """Requests that a worker generates at once."""
    tokens_per_completion: int = 16
    place_s: float = 0.0
    """Until a role has a machine and a process."""
    worker_start_s: float = 1.0
    adopt_s: float = 0.1
    score_s: float = 0.01
    """Of reward servers and reference scorers, a call."""
    learner_start_s: float = 2.0
    update_s: float = 1.0
    publish_s: float = 0.1
    save_s: float = 0.1
