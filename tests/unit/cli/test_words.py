"""Figures as people read them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from rlhf_cluster.cli.words import progress


@pytest.mark.parametrize(("unit", "said"), [("steps", "step 3 of 9"), ("prompts", "3 of 9 prompts")])
def test_a_job_that_generates_counts_prompts(unit, said):
    job: Any = SimpleNamespace(step=3, num_steps=9, unit=unit)
    assert progress(job) == said
