"""What cannot be true of an answer, checked where it arrives: groups of a rollout worker, columns of a reward server
or a reference scorer.

A wrong answer is no bad reward and no bad sample: it says that the role is broken, so the driver refuses all of it as
`BadAnswer`. The checks run for every group of the job, hence whole columns at once, and details only once one is wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import numpy as np

from rlhf_cluster.records import RolloutGroup, RolloutRequest
from rlhf_cluster.records.rollout import UNFINISHED

FINISH_REASONS = frozenset({"stop", "length", UNFINISHED})
MAX_LOGPROB = 1e-6
"""A log-probability is at most 0; engines round a certain token to a hair above."""


def problem_of(request: RolloutRequest, group: RolloutGroup, *, newest_version: int) -> str | None:
    """One sentence on what is wrong with a worker's `group` as the answer to `request`, or None.

    `newest_version` is the newest weight version that was ever published.
    """
    if group.request_id != request.request_id:
        return f"request {request.request_id} was answered with a group of request {group.request_id}"
    found = (
        _prompt_problem(request, group)
        or _shape_problem(request, group)
        or _token_problem(group)
        or _version_problem(group, newest_version)
        or (_begun_problem(request.begun, group) if request.begun is not None else None)
    )
    return None if found is None else f"the group of request {request.request_id} {found}"


def score_problem(before: Sequence[RolloutGroup], after: Sequence[RolloutGroup]) -> str | None:
    """One sentence on what is wrong with what a reward server or reference scorer made of `before`, or None."""
    if len(before) != len(after):
        return f"{len(before)} groups were sent and {len(after)} came back"
    for sent, scored in zip(before, after, strict=True):
        if scored.request_id != sent.request_id:
            return f"the group of request {scored.request_id} came back in the place of request {sent.request_id}"
        if found := _changed_problem(sent, scored) or _rewards_problem(scored) or _reference_problem(scored):
            return f"the group of request {sent.request_id} {found}"
    return None


def _prompt_problem(request: RolloutRequest, group: RolloutGroup) -> str | None:
    asked, answered = request.prompt, group.prompt
    if asked is answered or (asked.prompt_id == answered.prompt_id and _same(asked.token_ids, answered.token_ids)):
        return None
    return f"has the prompt {answered.prompt_id}, not the one that was asked, {asked.prompt_id}, token for token"


def _shape_problem(request: RolloutRequest, group: RolloutGroup) -> str | None:
    lengths, reasons, bound = group.lengths.tolist(), group.finish_reasons, request.sampling.max_new_tokens
    if not len(lengths) == len(reasons) == request.num_completions:
        return (
            f"has {len(lengths)} completions and {len(reasons)} finish reasons; {request.num_completions} "
            "completions were asked for"
        )
    if unknown := set(reasons) - FINISH_REASONS:
        return f"has the unknown finish reason {min(unknown)!r}"
    shape = (sum(lengths),)
    for name, column in (("token ids", group.token_ids), ("log-probs", group.logprobs), ("versions", group.versions)):
        if column.shape != shape:
            return f"has lengths that sum to {shape[0]}, and {name} of shape {column.shape}"
    if lengths and (max(lengths) > bound or min(lengths) < 1):
        for i, length in enumerate(lengths):
            if length > bound or length < (reasons[i] != UNFINISHED):
                return f"has {length} tokens in completion {i}, {reasons[i]}; at least 1, at most {bound} can be"
    return None


def _token_problem(group: RolloutGroup) -> str | None:
    if not group.num_tokens:
        return None
    if np.minimum.reduce(group.token_ids) < 0:
        return f"has the token id {group.token_ids.min()}; ids are 0 or more"
    # Both comparisons are false for NaN.
    if np.maximum.reduce(group.logprobs) <= MAX_LOGPROB and np.minimum.reduce(group.logprobs) > -np.inf:
        return None
    wrong = group.logprobs[~(np.isfinite(group.logprobs) & (group.logprobs <= MAX_LOGPROB))]
    return f"has {len(wrong)} log-probabilities that cannot be, such as {wrong[0]:g}; they are finite and at most 0"


def _version_problem(group: RolloutGroup, newest_version: int) -> str | None:
    versions = group.versions
    if not len(versions):
        return None
    oldest, newest = int(np.minimum.reduce(versions)), int(np.maximum.reduce(versions))
    if oldest < 0 or newest > newest_version:
        return f"has tokens of weight versions {oldest} to {newest}; 0 to {newest_version} were published"
    if oldest == newest:
        return None
    # Between two completions the versions may start anew.
    starts = set(accumulate(group.lengths.tolist()))
    for at in (np.flatnonzero(versions[1:] < versions[:-1]) + 1).tolist():
        if at not in starts:
            return (
                f"goes back from weight version {versions[at - 1]} to {versions[at]} within a completion, "
                f"at token {at} of its column"
            )
    return None


def _begun_problem(begun: RolloutGroup, group: RolloutGroup) -> str | None:
    old_ends, new_ends = accumulate(begun.lengths.tolist()), accumulate(group.lengths.tolist())
    lengths = zip(begun.lengths.tolist(), old_ends, group.lengths.tolist(), new_ends, strict=True)
    for i, (kept, old_end, length, new_end) in enumerate(lengths):
        old, new = slice(old_end - kept, old_end), slice(new_end - length, new_end - length + kept)
        if length < kept or not _same(begun.token_ids[old], group.token_ids[new]):
            return f"does not keep the {kept} tokens that another worker had begun completion {i} with"
        if length > kept and begun.finish_reasons[i] != UNFINISHED:
            return f"goes on with completion {i}, which another worker had finished"
        if not _same(begun.versions[old], group.versions[new]):
            return f"says of other weight versions that they made the begun tokens of completion {i}"
    return None


def _changed_problem(sent: RolloutGroup, scored: RolloutGroup) -> str | None:
    if not _same(sent.lengths, scored.lengths) or not _same(sent.token_ids, scored.token_ids):
        return "came back with other completions than were sent"
    for before, after in ((sent.rewards, scored.rewards), (sent.reference_logprobs, scored.reference_logprobs)):
        if before is None and after is not None:
            return None
    if sent.rewards is None or sent.reference_logprobs is None:
        return "came back with neither rewards nor reference log-probabilities filled"
    return None


def _rewards_problem(group: RolloutGroup) -> str | None:
    if group.rewards is None:
        return None
    num = group.num_completions
    for name, values in (("rewards", group.rewards), *group.breakdown.items()):
        if values.shape != (num,):
            return f"has {num} completions and {name} of shape {values.shape}"
    failed = {failure.completion for failure in group.invalid}
    if failed and not 0 <= min(failed) <= max(failed) < num:
        return f"marks completion {max(failed, key=abs)} as failed and has {num}"
    for i in np.flatnonzero(~np.isfinite(group.rewards)).tolist():
        if i not in failed:
            return f"has the reward {group.rewards[i]:g} for completion {i}, which is not marked as failed"
    return None


def _reference_problem(group: RolloutGroup) -> str | None:
    values = group.reference_logprobs
    if values is None:
        return None
    if values.shape != (group.num_tokens,):
        return f"has {group.num_tokens} tokens and reference log-probabilities of shape {values.shape}"
    if not len(values) or (np.maximum.reduce(values) <= MAX_LOGPROB and np.minimum.reduce(values) > -np.inf):
        return None
    wrong = values[~(np.isfinite(values) & (values <= MAX_LOGPROB))]
    return f"has {len(wrong)} reference log-probabilities that cannot be, such as {wrong[0]:g}"


def _same(left: np.ndarray, right: np.ndarray) -> bool:
    """Equal in type, shape and every byte; for columns this small much faster than `np.array_equal`."""
    return left is right or (
        left.dtype == right.dtype and left.shape == right.shape and left.tobytes() == right.tobytes()
    )
