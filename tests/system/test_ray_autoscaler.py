"""A job on a cluster with Ray's real autoscaler: a rollout worker that needs a node gets one, and gives it back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from rlhf_cluster.service.processes import last_lines, start

HERE = Path(__file__).parent
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
BOUND_S = 240
END_S = 30
JOB = (
    "runtime=ray",
    "rollout.engine.type=transformers",
    "rollout.num_workers=1",
    "rollout.resources={rollout=1}",
    "train.num_steps=100000",
    "train.prompts_per_step=8",
    "train.max_staleness=1",
    "algorithm.keep_zero_variance=true",
    "evaluation.num_prompts=1",
    'observers=["journal"]',
)
