"""A small valid job as data: the scripted engine, one reward, two steps. Tests override what they are about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rlhf_cluster.config import JobConfig
from rlhf_cluster.config.load import apply_override, check


def make_job(overrides: Sequence[str] = (), **sections: Any) -> JobConfig:
    """The job with `key=value` overrides as on the command line; `sections` replace whole top-level keys."""
    tree: dict[str, Any] = {**_tree(), **sections}
    for override in overrides:
        apply_override(tree, override)
    return check(tree, source="make_job")


def _tree() -> Mapping[str, Any]:
    return {
        "name": "test",
        "runtime": "local",
        "model": "word-world",
        "data": {"train": {"type": "procedural", "name": "word_world"}},
        "rollout": {"max_new_tokens": 8, "engine": {"type": "scripted"}},
        "rewards": [{"function": "word_world", "name": "fake"}],
        "algorithm": {"type": "grpo"},
        "train": {"num_steps": 2, "prompts_per_step": 2, "completions_per_prompt": 2},
        "observers": ["journal"],
        # Said, so that a test is the same on every CPU.
        "learner": {"precision": "bf16"},
        "reference": {"precision": "bf16"},
    }
