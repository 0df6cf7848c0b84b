"""Beginnings of movie reviews for the policy to continue: 60 prompts, of which 16 are held out.

Every beginning is neutral and stops just before the judgement, so what the reward sees is the model's own.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from rlhf_cluster.errors import DataError

OPENINGS = (
    "Last night I watched {} and it was",
    "My review of {}: the story is",
    "We saw {}, and the film felt",
    "I finished {} and thought it was",
    "When {} ended, everyone was",
    "In short, {} is a movie that",
)
SUBJECTS = (
    "the new space movie",
    "that old western",
    "a short film about trains",
    "the mountain movie",
    "this detective film",
    "the island documentary",
    "a movie about two chefs",
    "the long river film",
    "that silent movie",
    "the film about chess",
)
NUM_EVAL = 16


def rows(*, split: str = "train", num_rows: int | None = None, seed: int = 0) -> list[dict[str, Any]]:
    """Prompts as `{"prompt", "subject"}`; the split is fixed, `seed` changes the order only."""
    if split not in ("train", "eval"):
        raise DataError(f"positive_reviews has no split {split!r}; use 'train' or 'eval'")
    every = [{"prompt": opening.format(subject), "subject": subject} for opening in OPENINGS for subject in SUBJECTS]
    held_out, trained = np.split(np.random.default_rng(0).permutation(len(every)), [NUM_EVAL])
    chosen = np.random.default_rng(seed).permutation(held_out if split == "eval" else trained)
    return [every[index] for index in chosen[:num_rows]]
