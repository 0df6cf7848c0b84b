"""The groups that a refused step is blamed on, kept for a person: `refused/step-000012.jsonl` of the job directory.

One JSON object a line and group: prompt, completions, rewards, advantages, and every number that is not finite with its
place. JSON has no word for those, so they are text: "nan", "inf", "-inf".
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from rlhf_cluster.driver.whole_file import write_whole
from rlhf_cluster.errors import StepRefused
from rlhf_cluster.records import Batch, RolloutGroup

DIRECTORY = "refused"
TOKEN_COLUMNS = ("logprobs", "reference_logprobs", "values", "returns", "advantages")


def with_culprits_kept(error: StepRefused, batch: Batch, *, job_dir: Path) -> StepRefused:
    """Write the culprits, or all groups where none is one alone. Returns the error with the file's name."""
    culprits = [group for group in batch.groups if group.request_id in error.request_ids]
    path = job_dir / DIRECTORY / f"step-{batch.step:06d}.jsonl"
    lines = [json.dumps(_line(group), ensure_ascii=False, allow_nan=False) for group in culprits or batch.groups]
    text = "".join(f"{line}\n" for line in lines).encode("utf-8", "replace").decode("utf-8")
    try:
        path.parent.mkdir(exist_ok=True)
        write_whole(path, text)
    except OSError as full:
        return StepRefused(f"{error}. They could not be written to {path}: {full}", request_ids=error.request_ids)
    return StepRefused(f"{error}. They are in {path}", request_ids=error.request_ids)


def _line(group: RolloutGroup) -> dict[str, Any]:
    return {
        "request_id": group.request_id,
        "prompt_id": group.prompt.prompt_id,
        "prompt": group.prompt.text,
        "prompt_token_ids": group.prompt.token_ids.tolist(),
        "worker_id": group.worker_id,
        "completions": [_completion(group, index) for index in range(group.num_completions)],
    }


def _completion(group: RolloutGroup, index: int) -> dict[str, Any]:
    end = int(group.lengths[: index + 1].sum())
    span = slice(end - int(group.lengths[index]), end)
    columns = {name: getattr(group, name) for name in TOKEN_COLUMNS}
    return {
        "text": group.texts[index] if group.texts else "",
        "token_ids": group.token_ids[span].tolist(),
        "finish_reason": group.finish_reasons[index],
        "reward": None if group.rewards is None else _word(group.rewards[index]),
        "rewards": {name: _word(values[index]) for name, values in group.breakdown.items()},
        "advantages": None if group.advantages is None else [_word(value) for value in group.advantages[span]],
        "not_finite": {
            name: found
            for name, values in columns.items()
            if values is not None and (found := _not_finite(values[span]))
        },
    }


def _not_finite(values: np.ndarray) -> list[dict[str, Any]]:
    """By place within the completion."""
    return [{"token": int(at), "value": _word(values[at])} for at in np.flatnonzero(~np.isfinite(values))]


def _word(value: float) -> float | str:
    return float(value) if math.isfinite(value) else str(float(value))
