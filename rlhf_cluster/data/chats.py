"""Chats as data: messages of `role` and `content`, and where in them the prompt ends and the answer begins."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import takewhile
from typing import Any

from rlhf_cluster.errors import DataError

Messages = tuple[Mapping[str, str], ...]

ASSISTANT = "assistant"


def messages_of(value: Any, *, where: str, what: str = "prompt") -> Messages:
    """The checked messages of a column. Raises `DataError` that says `where` and `what` is wrong."""
    if not isinstance(value, list | tuple):
        raise DataError(f"{where}: the {what} is {value!r}; it must be a text or a list of chat messages")
    if not value:
        raise DataError(f"{where}: the {what} is empty")
    for message in value:
        fields = message if isinstance(message, Mapping) else {}
        if not isinstance(fields.get("role"), str) or not isinstance(fields.get("content"), str):
            raise DataError(f"{where}: {message!r} is no chat message; it needs the texts `role` and `content`")
    if not value[-1]["content"].strip():
        raise DataError(f"{where}: the last message is empty")
    return tuple(value)


def num_before_answer(messages: Messages) -> int:
    """Messages before the assistant's first: the prompt of a whole chat. All of them where it never answers."""
    return sum(1 for _ in takewhile(lambda message: message["role"] != ASSISTANT, messages))


def num_shared(chosen: Messages, rejected: Messages) -> int:
    """Messages that two whole chats begin with and that end where the assistant has to answer."""
    shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(chosen, rejected, strict=False)))
    while shared and chosen[shared - 1]["role"] == ASSISTANT:
        shared -= 1
    return shared


def is_whole_chat(value: Any) -> bool:
    """Whether a column of answers holds whole chats, the prompt in front, instead of what the assistant says."""
    return isinstance(value, list | tuple) and bool(value) and value[0].get("role") != ASSISTANT


def prompt_in_chats(columns: Mapping[str, Any], *, where: str) -> Messages | None:
    """The prompt of a row that has none of its own: it opens `messages`, or is what `chosen` and `rejected` share."""
    if columns.get("messages") is not None:
        messages = messages_of(columns["messages"], where=where, what="`messages` column")
        prompt = messages[: num_before_answer(messages)]
    elif is_whole_chat(columns.get("chosen")) and is_whole_chat(columns.get("rejected")):
        chosen, rejected = (messages_of(columns[name], where=where, what=name) for name in ("chosen", "rejected"))
        prompt = chosen[: num_shared(chosen, rejected)]
    else:
        return None
    if not prompt:
        raise DataError(f"{where}: its chat has no message that the assistant could answer; it must begin with one")
    return prompt
