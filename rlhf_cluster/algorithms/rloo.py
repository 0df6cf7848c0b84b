"""RLOO: each completion against the mean of its siblings (arXiv:2402.14740)."""

from __future__ import annotations

from typing import Literal

import numpy as np

from rlhf_cluster.algorithms.siblings import Siblings
from rlhf_cluster.functional import advantages


class RLOO(Siblings):
    """Per token: `-weight * min(r A, clip(r, 1 - clip_low, 1 + clip_high) A)`, `A` the reward less the others' mean.

    With one update a step that is REINFORCE: its gradient is `-weight * A * grad log p`. The paper sums over the tokens
    of a completion and averages over completions: the same up to their mean length, a number of the whole batch.
    """

    type: Literal["rloo"] = "rloo"

    def advantages(self, rewards_G: np.ndarray) -> np.ndarray:
        # A group of one is dropped before; alone in a batch by hand it has no sibling to differ from.
        return advantages.leave_one_out(rewards_G) if len(rewards_G) > 1 else np.zeros_like(rewards_G)
