"""Whether the completion is the answer that the prompt's row gives."""

from __future__ import annotations

from rlhf_cluster.rewards.sample import RewardSample


def exact_match(sample: RewardSample, *, answer_column: str = "answer", ignore_case: bool = False) -> float:
    """1.0 when the completion equals the answer, else 0.0; runs of white space count as one space, ends as none."""
    completion, answer = (" ".join(str(text).split()) for text in (sample.completion, sample.column(answer_column)))
    if ignore_case:
        completion, answer = completion.casefold(), answer.casefold()
    return float(completion == answer)
