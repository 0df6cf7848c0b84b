"""What a row recorded: its prompt, the completions, and what was said of them, found by the columns that it has.

    prompt, completion                 a demonstration
    messages                           a demonstration; the prompt is all before the assistant's first answer
    prompt, chosen, rejected           a pair: rewards [1, 0], or [.5, .5] with `tie`; `margin` or the two scores refine
    chosen, rejected as whole chats    the same; the prompt is what both begin with
    prompt, completion, label          one completion called good (true) or bad (false), as KTO learns from
    prompt, completions, rewards       a group with a number for each

The names are those of the field's data sets; a column that is null counts as absent, since tables hold all columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rlhf_cluster.data.chats import (
    ASSISTANT,
    Messages,
    is_whole_chat,
    messages_of,
    num_before_answer,
    num_shared,
)
from rlhf_cluster.data.sources import Row
from rlhf_cluster.errors import DataError

CONTENT = ("completion", "completions", "messages", "chosen", "rejected")
SCORES = (("chosen_score", "rejected_score"), ("score_chosen", "score_rejected"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """One prompt and G recorded completions, not yet tokenised."""

    prompt: str | Messages
    completions: tuple[str | Messages, ...]
    """[G], each a text, or the messages after the prompt: the assistant's first, others may follow."""
    rewards: tuple[float, ...] | None
    """[G], or None for a demonstration."""
    item: Mapping[str, Any]
    """The columns that are neither prompt nor completion."""


def holds_recordings(row: Row) -> bool:
    """Whether it has a completion at all; else it is a prompt to be answered."""
    return any(row.item.get(name) is not None for name in CONTENT)


def recording_of(row: Row) -> Recording:
    """Raises `DataError` naming the row when its columns are none of the above, or contradict themselves."""
    columns = {name: value for name, value in row.item.items() if value is not None}
    where = row.where
    if {"chosen", "rejected"} <= set(columns):
        prompt, completions, rewards = _pair(row.prompt, columns, where)
    elif {"completions", "rewards"} <= set(columns):
        prompt, completions, rewards = _ranked(row.prompt, columns, where)
    elif "completion" in columns:
        prompt, completions = row.prompt, (_answer(columns["completion"], where, "completion"),)
        label = columns.get("label")
        rewards = (float(label),) if isinstance(label, bool) else None
    elif "messages" in columns:
        prompt, answer = _chat(columns["messages"], where)
        completions, rewards = (answer,), None
    else:
        raise DataError(
            f"{where} has no recorded completion: it needs `completion`, `messages`, `chosen` and `rejected`, or "
            f"`completions` and `rewards`; its columns are {', '.join(columns) or 'the prompt alone'}"
        )
    item = {name: value for name, value in row.item.items() if name not in CONTENT}
    return Recording(prompt=prompt, completions=completions, rewards=rewards, item=item)


def is_undecided(row: Row) -> bool:
    """Whether it is a pair of which nobody said which is better: not judged yet, or skipped."""
    has = {name for name, value in row.item.items() if value is not None}
    return {"completion_a", "completion_b"} <= has and not {"chosen", "rejected"} & has


_Parts = tuple[str | Messages, tuple[str | Messages, ...], tuple[float, ...]]


def _pair(prompt: str | Messages, columns: Mapping[str, Any], where: str) -> _Parts:
    chosen, rejected = columns["chosen"], columns["rejected"]
    rewards = _pair_rewards(columns, where)
    if is_whole_chat(chosen) and is_whole_chat(rejected):
        chosen, rejected = messages_of(chosen, where=where, what="chosen"), messages_of(rejected, where=where)
        shared = num_shared(chosen, rejected)
        if not shared:
            raise DataError(f"{where}: chosen and rejected are whole chats that do not begin with the same messages")
        return chosen[:shared], (_told(chosen[shared:], where), _told(rejected[shared:], where)), rewards
    return prompt, (_answer(chosen, where, "chosen"), _answer(rejected, where, "rejected")), rewards


def _pair_rewards(columns: Mapping[str, Any], where: str) -> tuple[float, float]:
    """Their difference is the margin by which the chosen one is better; a tie has none."""
    if columns.get("tie") is True:
        return 0.5, 0.5
    for better, worse in SCORES:
        if {better, worse} <= set(columns):
            scores = float(columns[better]), float(columns[worse])
            if scores[0] < scores[1]:
                raise DataError(
                    f"{where}: {better} {scores[0]:g} is below {worse} {scores[1]:g}; exchange the two texts"
                )
            return scores
    if "margin" in columns:
        margin = float(columns["margin"])
        if margin <= 0:
            raise DataError(f"{where}: margin is {margin:g}; it must be above 0, and a tie says tie = true instead")
        return margin, 0.0
    return 1.0, 0.0


def _ranked(prompt: str | Messages, columns: Mapping[str, Any], where: str) -> _Parts:
    completions, rewards = columns["completions"], columns["rewards"]
    if not isinstance(completions, Sequence) or not completions or len(completions) != len(rewards):
        raise DataError(f"{where}: `completions` and `rewards` must be lists of the same length, at least 1")
    return prompt, tuple(_answer(each, where, "completions") for each in completions), tuple(map(float, rewards))


def _chat(messages: Any, where: str) -> tuple[Messages, Messages]:
    messages = messages_of(messages, where=where, what="`messages` column")
    start = num_before_answer(messages)
    if start == 0:
        raise DataError(f"{where}: its chat begins with the assistant's message; it must begin with one to answer")
    return messages[:start], _told(messages[start:], where)


def _answer(value: Any, where: str, what: str) -> str | Messages:
    return value if isinstance(value, str) else _told(messages_of(value, where=where, what=what), where)


def _told(messages: Messages, where: str) -> Messages:
    """From the assistant's first message to its last: what a user says after that is answered by nobody."""
    if not messages or messages[0]["role"] != ASSISTANT:
        raise DataError(f"{where}: what follows the prompt must begin with a message of the assistant")
    last = max(index for index, message in enumerate(messages) if message["role"] == ASSISTANT)
    return messages[: last + 1]
