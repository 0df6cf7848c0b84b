"""From a row to the text and the token ids of its prompt: raw, or through the tokenizer's chat template."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from rlhf_cluster.data.chats import ASSISTANT, Messages
from rlhf_cluster.data.sources import Row
from rlhf_cluster.errors import DataError

Tokenize = Callable[[Row], tuple[str, np.ndarray]]
"""Row -> (text, int32 [P])."""


def make_tokenize(tokenizer: Any, *, template: Literal["raw", "chat"] = "raw", system: str | None = None) -> Tokenize:
    """The function that words and tokenises rows; `tokenizer` is a Hugging Face one.

    `raw` lets the tokenizer add its special tokens (a begin token); `chat` does not, since the template has written
    them already. Raises `DataError` at once when `chat` is asked of a tokenizer without a template, and later for a
    row that the template cannot word or that has no tokens.
    """
    if template == "raw":
        return lambda row: _encode(tokenizer, row, raw_text(row), add_special_tokens=True)
    require_template(tokenizer)
    return lambda row: _encode(tokenizer, row, chat_text(tokenizer, row, system=system), add_special_tokens=False)


def raw_text(row: Row) -> str:
    if isinstance(row.prompt, str):
        return row.prompt
    raise DataError(f'{row.where} holds chat messages: set data.template = "chat"')


def chat_text(tokenizer: Any, row: Row, *, system: str | None) -> str:
    """The chat so far, up to and with the opening of the assistant's turn."""
    messages = with_system(row.prompt, system)
    if messages[-1]["role"] == ASSISTANT:
        raise DataError(f"{row.where} ends with the assistant's message; a prompt must end where it has to answer")
    return render(tokenizer, messages, answer_next=True, where=row.where)


def require_template(tokenizer: Any) -> None:
    if not getattr(tokenizer, "chat_template", None):
        raise DataError(
            f'{tokenizer.name_or_path or "this tokenizer"} has no chat template: set data.template = "raw", '
            "or use an instruction model"
        )


def with_system(prompt: str | Messages, system: str | None) -> Messages:
    """A prompt as a chat, the system message in front. A row's own system message wins."""
    messages = ({"role": "user", "content": prompt},) if isinstance(prompt, str) else prompt
    if system is None or messages[0]["role"] == "system":
        return messages
    return ({"role": "system", "content": system}, *messages)


def render(tokenizer: Any, messages: Messages, *, answer_next: bool, where: str) -> str:
    """A chat in the words of the tokenizer's template; with `answer_next` the assistant's turn is opened after it."""
    from jinja2 import TemplateError

    try:
        return tokenizer.apply_chat_template(list(messages), add_generation_prompt=answer_next, tokenize=False)
    except TemplateError as error:
        raise DataError(f"{where}: the chat template refuses it: {error}") from error


def _encode(tokenizer: Any, row: Row, text: str, *, add_special_tokens: bool) -> tuple[str, np.ndarray]:
    token_ids = tokenizer(text, add_special_tokens=add_special_tokens)["input_ids"]
    if not token_ids:
        raise DataError(f"{row.where}: the prompt {text!r} has no tokens")
    return text, np.asarray(token_ids, dtype=np.int32)
