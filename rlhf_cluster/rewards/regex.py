"""Whether the completion has a format, given as a regular expression."""

from __future__ import annotations

import re
from typing import Literal

from rlhf_cluster.rewards.sample import RewardSample


def regex(
    sample: RewardSample, *, pattern: str, where: Literal["whole", "start", "anywhere"] = "whole", strip: bool = True
) -> float:
    r"""1.0 when `pattern` matches the completion, else 0.0; the dot also matches line ends.

    Reasoning in tags, then an answer: `<think>.+</think>\s*<answer>.+</answer>`.
    """
    matchers = {"whole": re.fullmatch, "start": re.match, "anywhere": re.search}
    if where not in matchers:
        raise ValueError(f"where={where!r}; it is one of {', '.join(matchers)}")
    text = sample.completion.strip() if strip else sample.completion
    return float(matchers[where](pattern, text, flags=re.DOTALL) is not None)
