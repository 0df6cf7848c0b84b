"""What every rank of a learner group needs to know; made by the runtime from the job, without torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from rlhf_cluster.learner.settings import LearnerSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class LearnerSpec:
    """The same for all ranks."""

    settings: LearnerSettings
    model_path: Path
    temperature: float
    """Of the sampling: the learner divides its logits by it, so ratios compare like with like."""
    num_steps: int
    """Length of the learning-rate schedule."""
    seed: int
    serving_dtype: str
    probe_token_ids: np.ndarray
    """int32 [T]."""
    probe_tolerance: float
    model: Literal["policy", "policy_and_critic", "reward_model"] = "policy"
    """What the algorithm trains."""
    critic_path: Path | None = None
    """What a critic's own trunk begins from; None is `model_path`."""
    full_every: int = 1
    """Every so many versions one is published whole, those between as deltas; 1 publishes all of them whole."""
    author: tuple[int, int] = (0, 0)
    """(job epoch, incarnation of the learner group), stamped on every handle."""
