"""The verifiers of reasoning-gym's procedural tasks; needs the extra `envs`."""

from __future__ import annotations

import re

from rlhf_cluster.errors import DataError
from rlhf_cluster.rewards.sample import RewardSample


def reasoning_gym(
    sample: RewardSample,
    *,
    dataset_column: str = "dataset",
    entry_column: str = "entry",
    answer_pattern: str | None = None,
) -> float:
    """The task's own `score_answer`, in [0, 1] for nearly all tasks.

    The prompt's row names the task (`chain_sum`, ...) and carries its entry (`question`, `answer`, `metadata`).
    With `answer_pattern`, the answer is the last match's first group; without a match it is missing, which tasks
    score as they like (mostly 0.0).
    """
    from reasoning_gym import get_score_answer_fn

    entry = sample.column(entry_column)
    if not isinstance(entry, dict) or "answer" not in entry:
        raise DataError(f"column {entry_column!r} is no reasoning-gym entry: it needs `question`, `answer`, `metadata`")
    answer: str | None = sample.completion.strip()
    if answer_pattern is not None:
        matches = list(re.finditer(answer_pattern, sample.completion, flags=re.DOTALL))
        answer = matches[-1].group(1).strip() if matches else None
    return get_score_answer_fn(sample.column(dataset_column))(answer, entry)
