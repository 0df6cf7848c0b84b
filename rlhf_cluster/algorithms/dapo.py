"""DAPO: GRPO with a higher upper clip, a mean over tokens, groups that are all right or all wrong left out.

arXiv:2503.14476. Its dynamic sampling is how groups of equal rewards are treated here anyway: they are dropped, and
another prompt takes their place. Its soft overlong punishment acts once `overlong_length` and `overlong_cache` are set.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from rlhf_cluster.algorithms.siblings import GroupRelative


class DAPO(GroupRelative):
    """Per token: `-weight * min(r A, clip(r, 1 - clip_low, 1 + clip_high) A)`, averaged over tokens."""

    type: Literal["dapo"] = "dapo"
    clip_high: float = Field(default=0.28, ge=0)
    """The ratio is clipped above at 1 + `clip_high`: more room than below, for tokens that were unlikely."""
