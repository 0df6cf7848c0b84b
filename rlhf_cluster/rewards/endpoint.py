"""A language model behind an OpenAI-compatible endpoint: texts that it writes, and the likeliest first tokens."""

from __future__ import annotations

import json
import math
import os
import random
from collections.abc import Iterable, Mapping
from typing import Any

from rlhf_cluster.errors import ConfigError
from rlhf_cluster.rewards.asking import Asking
from rlhf_cluster.rewards.endpoint_settings import EndpointSettings
from rlhf_cluster.rewards.sample import Failure, shorten

TokenLogprobs = list[tuple[str, float]]
"""Text and log-probability of tokens; two tokens may have the same text."""
LARGEST_LOGPROB = 1e-3
"""Rounding may lift a certain token's a hair above 0."""


class Endpoint:
    """Belongs to one event loop. Raises for nothing that the service does: that is a `Failure`."""

    def __init__(self, settings: EndpointSettings, *, rng: random.Random | None = None) -> None:
        """Raises `ConfigError` where the key's environment variable is not set."""
        self._settings = settings
        key = _key(settings)
        headers = {"authorization": f"Bearer {key}"} if key else {}
        self._asking = Asking(settings, headers=headers, secrets=[key] if key else [], rng=rng)

    async def write(self, prompt: str) -> str | Failure:
        """What the model says, without white space at the ends; an empty text is a failure."""
        options = {"max_tokens": self._settings.max_new_tokens, "temperature": self._settings.temperature}
        choice = await self._choice(prompt, options)
        if isinstance(choice, Failure):
            return choice
        message = choice.get("message")
        text = message.get("content") if isinstance(message, dict) else choice.get("text")
        if not isinstance(text, str) or not text.strip():
            return Failure(kind="not_a_number", message=shorten(f"answered no text: {choice}"))
        return text.strip()

    async def first_token(self, prompt: str, *, num: int) -> TokenLogprobs | Failure:
        """The `num` likeliest first tokens of a reply."""
        is_chat = self._settings.api == "chat"
        asked: dict[str, Any] = {"logprobs": True, "top_logprobs": num} if is_chat else {"logprobs": num}
        choice = await self._choice(prompt, {"max_tokens": 1, "temperature": 1.0, **asked})
        if isinstance(choice, Failure):
            return choice
        try:
            return (_of_chat if is_chat else _of_completion)(choice)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError):
            message = f"answered no log-probabilities: {choice}; the endpoint may not support them"
            return Failure(kind="not_a_number", message=shorten(message))

    async def close(self) -> None:
        await self._asking.close()

    async def _choice(self, prompt: str, options: Mapping[str, Any]) -> dict[str, Any] | Failure:
        settings = self._settings
        is_chat = settings.api == "chat"
        asked = {"messages": [{"role": "user", "content": prompt}]} if is_chat else {"prompt": prompt}
        body = json.dumps({"model": settings.model, **asked, **options}).encode()
        path = "chat/completions" if is_chat else "completions"
        answer = await self._asking.ask(f"{settings.url}/{path}", body)
        return answer if isinstance(answer, Failure) else _first_choice(answer)


def _first_choice(body: bytes) -> dict[str, Any] | Failure:
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        answer = None
    choices = answer.get("choices") if isinstance(answer, dict) else None
    if isinstance(choices, list) and choices and isinstance(choices[0], dict):
        return choices[0]
    shown = shorten(body[:200].decode(errors="replace"))
    return Failure(kind="not_a_number", message=f"answered no `choices`, but {shown!r}")


def _of_chat(choice: Mapping[str, Any]) -> TokenLogprobs:
    """`logprobs.content[0].top_logprobs`: a list of `token` and `logprob`."""
    tops = choice["logprobs"]["content"][0]["top_logprobs"]
    return _checked([(top["token"], top["logprob"]) for top in tops])


def _of_completion(choice: Mapping[str, Any]) -> TokenLogprobs:
    """`logprobs.top_logprobs[0]`: text to log-probability."""
    return _checked(choice["logprobs"]["top_logprobs"][0].items())


def _checked(pairs: Iterable[tuple[Any, Any]]) -> TokenLogprobs:
    checked = [(str(token), float(logprob)) for token, logprob in pairs]
    if not checked or any(math.isnan(logprob) or logprob > LARGEST_LOGPROB for _, logprob in checked):
        raise ValueError("no log-probabilities")
    return checked


def _key(settings: EndpointSettings) -> str:
    name = settings.api_key_env
    if name is None:
        return ""
    key = os.environ.get(name, "").strip()
    if not key:
        raise ConfigError(
            f"api_key_env names the environment variable {name!r}, which is not set here; set it to the key of "
            f"{settings.url}, or leave api_key_env out"
        )
    if not (key.isascii() and key.isprintable()):
        raise ConfigError(f"the environment variable {name!r} holds characters that no key has; set it again")
    return key
