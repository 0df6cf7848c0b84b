"""GRPO: advantages from the siblings of a group, a clipped surrogate, an optional KL term, no critic.

DeepSeekMath, arXiv:2402.03300. Truncated importance sampling against the mismatch between rollout engine and learner is
on by default. `dr_grpo`, `dapo`, `gspo` and `cispo` have other defaults or another surrogate.
"""

from __future__ import annotations

from typing import Literal

from rlhf_cluster.algorithms.siblings import GroupRelative


class GRPO(GroupRelative):
    """Per token: `-weight * min(r A, clip(r, 1 - clip_low, 1 + clip_high) A) + kl_coef * kl`.

    `r` is the policy's probability over that of the policy at the start of the step, `weight` the truncated importance
    weight of the latter over the engine's. The KL term is not weighted.
    """

    type: Literal["grpo"] = "grpo"
