"""A prompt and recorded completions as token ids, and which of those the assistant wrote.

The prompt's tokens are exactly those that a rollout of it would have. In a chat of several turns only the assistant's
tokens are trained on, the token that ends each of its turns included; what the template writes after that is not.

    user: Hi<end> assistant: | Hello<end> | user: More<end> assistant: | Bye<end>
    prompt                   | trained    | between, not trained       | trained
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from rlhf_cluster.data.chats import ASSISTANT, Messages
from rlhf_cluster.data.template import render, require_template, with_system
from rlhf_cluster.errors import DataError


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    token_ids: np.ndarray
    """int32 [T], the token that ends it included."""
    is_trained: np.ndarray
    """bool [T]."""
    text: str
    """What the assistant said; of several turns, the chat as the template words it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    text: str
    """The prompt's."""
    token_ids: np.ndarray
    """int32 [P], the prompt's."""
    completions: tuple[Completion, ...]


Answer = str | Messages
Encode = Callable[[Answer, Sequence[Answer], str], Encoded]
"""(prompt, its completions, where the row is for messages) -> their tokens."""


def make_encode(tokenizer: Any, *, template: Literal["raw", "chat"], system: str | None) -> Encode:
    """`raw`: the texts as they are, each completion with the tokenizer's end token; `chat`: through its template.

    Raises `DataError` at once for a tokenizer that cannot do it, and later for a row that it cannot be done to.
    """
    if tokenizer.eos_token_id is None:
        raise DataError(f"{tokenizer.name_or_path or 'this tokenizer'} has no end token: give it an eos_token")
    if template == "raw":
        return lambda prompt, completions, where: _encode_raw(tokenizer, prompt, completions, where)
    require_template(tokenizer)
    ends = _end_tokens(tokenizer)
    return lambda prompt, completions, where: _encode_chat(
        tokenizer, with_system(prompt, system), completions, where, ends=ends
    )


def _encode_raw(tokenizer: Any, prompt: Answer, completions: Sequence[Answer], where: str) -> Encoded:
    texts = []
    for each in (prompt, *completions):
        if not isinstance(each, str):
            raise DataError(f'{where} holds chat messages: set data.template = "chat"')
        texts.append(each)
    prompt_ids = tokenizer(texts[0])["input_ids"]
    answers = tokenizer(texts[1:], add_special_tokens=False)["input_ids"]
    return Encoded(
        text=texts[0],
        token_ids=_prompt_ids(prompt_ids, texts[0], where),
        completions=tuple(
            _completion(text, [ids], [True], end=tokenizer.eos_token_id)
            for text, ids in zip(texts[1:], answers, strict=True)
        ),
    )


def _encode_chat(
    tokenizer: Any, head: Messages, completions: Sequence[Answer], where: str, *, ends: frozenset[int]
) -> Encoded:
    if head[-1]["role"] == ASSISTANT:
        raise DataError(f"{where}: its prompt ends with the assistant's message; it must end where it has to answer")
    opening = render(tokenizer, head, answer_next=True, where=where)
    chats = [
        (*head, *(({"role": ASSISTANT, "content": each},) if isinstance(each, str) else each)) for each in completions
    ]
    pieces = [list(_pieces(tokenizer, chat, opening, num_head=len(head), where=where)) for chat in chats]
    texts = [text for chat in pieces for text, _ in chat]
    prompt_ids, *rest = tokenizer([opening, *texts], add_special_tokens=False)["input_ids"]
    ids = iter(rest)
    return Encoded(
        text=opening,
        token_ids=_prompt_ids(prompt_ids, opening, where),
        completions=tuple(
            _chat_completion(answer, chat, [next(ids) for _ in chat], ends=ends, end=tokenizer.eos_token_id)
            for answer, chat in zip(completions, pieces, strict=True)
        ),
    )


def _pieces(
    tokenizer: Any, messages: Messages, opening: str, *, num_head: int, where: str
) -> Iterator[tuple[str, bool]]:
    """What follows the opening, cut into (text, does the assistant write it): answers, and what is between them.

    An answer begins where the chat before it, with the assistant's turn opened, ends; and it ends where the chat up to
    and with it ceases to be what the whole chat begins with.
    """
    whole = render(tokenizer, messages, answer_next=False, where=where)
    at = len(opening)
    for index in range(num_head, len(messages)):
        content = messages[index]["content"].strip()
        if messages[index]["role"] != ASSISTANT:
            continue
        before = opening
        if index > num_head:
            before = render(tokenizer, messages[:index], answer_next=True, where=where)
        through = whole
        if index < len(messages) - 1:
            through = render(tokenizer, messages[: index + 1], answer_next=False, where=where)
        start, end = len(before), _num_alike(through, whole)
        if not whole.startswith(before) or content not in whole[start:end]:
            raise DataError(
                f"{where}: the chat template words the first {index + 1} messages differently once others follow, so "
                "the assistant's tokens cannot be told: use rows of one answer each, or a template that only appends"
            )
        if start > at:
            yield whole[at:start], False
        yield whole[start:end], True
        at = end


def _num_alike(one: str, other: str) -> int:
    """Characters that both begin with."""
    if other.startswith(one):
        return len(one)
    return next(at for at, (a, b) in enumerate(zip(f"{one}\0", f"{other}\1", strict=False)) if a != b)


def _chat_completion(
    answer: Answer, pieces: Sequence[tuple[str, bool]], ids: Sequence[list[int]], *, ends: frozenset[int], end: int
) -> Completion:
    """Of each answer, what stands after its last end token is not trained on, and after the last answer is left out."""
    kept, trained = [], []
    for (_, is_answer), piece in zip(pieces, ids, strict=True):
        num_trained = _through_end(piece, ends) if is_answer else 0
        kept += [piece[:num_trained], piece[num_trained:]]
        trained += [True, False]
    return _completion(
        _said(answer, pieces),
        kept[:-1],
        trained[:-1],
        end=None if kept[-2] and kept[-2][-1] in ends else end,
    )


def _said(answer: Answer, pieces: Sequence[tuple[str, bool]]) -> str:
    """What the assistant said; of several turns, the chat as the template words it."""
    if isinstance(answer, str):
        return answer
    return answer[0]["content"] if len(answer) == 1 else "".join(text for text, _ in pieces)


def _completion(text: str, pieces: Sequence[list[int]], trained: Sequence[bool], *, end: int | None) -> Completion:
    tokens = [token for piece in pieces for token in piece] + ([] if end is None else [end])
    is_trained = np.repeat(np.array(trained), [len(piece) for piece in pieces])
    return Completion(
        token_ids=np.array(tokens, dtype=np.int32),
        is_trained=is_trained if end is None else np.append(is_trained, True),
        text=text,
    )


def _through_end(ids: list[int], ends: frozenset[int]) -> int:
    """How many tokens there are up to the last end token; all where there is none."""
    return next((at + 1 for at in range(len(ids) - 1, -1, -1) if ids[at] in ends), len(ids))


def _end_tokens(tokenizer: Any) -> frozenset[int]:
    """The special tokens, of which a template writes one where a turn ends. An unknown word is none."""
    special = {index for index, token in tokenizer.added_tokens_decoder.items() if token.special}
    return frozenset(special | {tokenizer.eos_token_id}) - {tokenizer.unk_token_id}


def _prompt_ids(ids: list[int], text: str, where: str) -> np.ndarray:
    if not ids:
        raise DataError(f"{where}: the prompt {text!r} has no tokens")
    return np.array(ids, dtype=np.int32)
