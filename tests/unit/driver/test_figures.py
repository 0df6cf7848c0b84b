"""What a step says of its batch."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from rlhf_cluster.driver.figures import critic_figures
from rlhf_cluster.testing.groups import make_group


def judged(values: list[float], returns: list[float], *, loss_mask: list[bool] | None = None):
    group = make_group(lengths=(len(values),))
    mask = None if loss_mask is None else np.array(loss_mask)
    return replace(group, values=np.float32(values), returns=np.float32(returns), loss_mask=mask)


def test_explained_variance_is_over_the_trained_tokens_of_all_groups_together():
    groups = [judged([1, 9, 2], [1, -9, 2], loss_mask=[True, False, True]), judged([2.0], [4.0])]
    # Errors 0, 0, 2: variance 8/9. Returns 1, 2, 4: variance 14/9.
    assert critic_figures(groups) == {"learner/explained_variance": pytest.approx(1 - 8 / 14)}


def test_without_a_critic_or_without_anything_to_foresee_there_is_no_such_figure():
    assert critic_figures([make_group((3,))]) == {}
    assert critic_figures([judged([0.0, 1.0], [1.0, 1.0])]) == {}
    assert critic_figures([judged([1.0], [2.0], loss_mask=[False])]) == {}
