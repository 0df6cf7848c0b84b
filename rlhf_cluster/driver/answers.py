"""The answers of an evaluation, one a line in `answers.jsonl`: what reports are made from, again and again."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from rlhf_cluster.driver.json_lines import plain
from rlhf_cluster.driver.record_json import parse_object
from rlhf_cluster.driver.whole_file import write_whole
from rlhf_cluster.errors import DataError
from rlhf_cluster.records import RolloutGroup

FILE_NAME = "answers.jsonl"
TOTAL = "reward"
"""The name of the weighted sum among an answer's rewards."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One completion of one held-out prompt."""

    prompt_id: str
    prompt: str
    """After the template; the answers of two evaluations are paired by it."""
    item: Mapping[str, Any]
    """The other columns of the prompt's row."""
    completion: str
    rewards: Mapping[str, float]
    """By name, before weighting, and the weighted sum as `reward`; NaN where invalid."""
    invalid: str
    """Why there is no reward; empty where there is one."""
    finish_reason: str
    token_ids: tuple[int, ...]
    logprob: float
    """Under the policy as it was sampled, summed over the tokens."""
    reference_logprob: float | None
    """The same under the reference; None where it was not asked."""

    @property
    def length(self) -> int:
        return len(self.token_ids)

    def reward(self, name: str) -> float:
        """NaN where there is none of this name."""
        return self.rewards.get(name, math.nan)

    def row(self) -> dict[str, Any]:
        return {
            "prompt_id": self.prompt_id,
            "prompt": self.prompt,
            "completion": self.completion,
            "rewards": self.rewards,
            "length": self.length,
            "finish_reason": self.finish_reason,
            "logprob": self.logprob,
            "reference_logprob": self.reference_logprob,
            "invalid": self.invalid,
            "item": self.item,
            "token_ids": self.token_ids,
        }


def answers_of(groups: Iterable[RolloutGroup]) -> list[Answer]:
    return [answer for group in groups for answer in _of_group(group)]


def reward_names(answers: Sequence[Answer]) -> list[str]:
    """The weighted sum first."""
    return list(dict.fromkeys(name for answer in answers for name in answer.rewards))


def write_answers(job_dir: Path, answers: Iterable[Answer]) -> None:
    lines = (json.dumps(plain(answer.row()), ensure_ascii=False, allow_nan=False) for answer in answers)
    # A completion can hold a lone surrogate, which UTF-8 cannot.
    text = "".join(f"{line}\n" for line in lines).encode("utf-8", "replace").decode("utf-8")
    write_whole(job_dir / FILE_NAME, text)


def read_answers(job_dir: Path) -> Iterator[Answer]:
    """In the order of the prompts. Raises `DataError` naming a line that is none."""
    path = job_dir / FILE_NAME
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                yield _answer(parse_object(line))
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise DataError(
                    f"{path} line {number} is no answer of an evaluation ({error}): evaluate again with `rlhf eval`"
                ) from error


def _answer(row: Mapping[str, Any]) -> Answer:
    return Answer(
        prompt_id=row["prompt_id"],
        prompt=row["prompt"],
        item=row["item"],
        completion=row["completion"],
        rewards={name: math.nan if value is None else float(value) for name, value in row["rewards"].items()},
        invalid=row["invalid"],
        finish_reason=row["finish_reason"],
        token_ids=tuple(row["token_ids"]),
        logprob=float(row["logprob"]),
        reference_logprob=row["reference_logprob"],
    )


def _of_group(group: RolloutGroup) -> Iterator[Answer]:
    ends = np.cumsum([0, *group.lengths]).tolist()
    for index, (start, end) in enumerate(pairwise(ends)):
        total = {} if group.rewards is None else {TOTAL: float(group.rewards[index])}
        failures = [failure for failure in group.invalid if failure.completion == index]
        reference = group.reference_logprobs
        yield Answer(
            prompt_id=group.prompt.prompt_id,
            prompt=group.prompt.text,
            item=dict(group.prompt.item),
            completion=group.texts[index],
            rewards=total | {name: float(values[index]) for name, values in group.breakdown.items()},
            invalid="; ".join(f"{failure.source} {failure.kind}: {failure.message}" for failure in failures),
            finish_reason=group.finish_reasons[index],
            token_ids=tuple(group.token_ids[start:end].tolist()),
            logprob=float(group.logprobs[start:end].sum(dtype=np.float64)),
            reference_logprob=None if reference is None else float(reference[start:end].sum(dtype=np.float64)),
        )
