"""What a job file says about an OpenAI-compatible endpoint, whatever it is asked for."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from rlhf_cluster.rewards.settings import RequestBounds, web_address


class EndpointSettings(RequestBounds):
    """A language model behind `POST <url>/chat/completions` or `<url>/completions`."""

    url: str
    """Up to and with the version: `https://api.example/v1`, or `http://127.0.0.1:8000/v1` of a `vllm serve`."""
    model: str
    """As the endpoint calls it."""
    api: Literal["chat", "completions"] = "chat"
    """`completions` for models without a chat template."""
    api_key_env: str | None = Field(None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    """Environment variable that holds the key; sent as `Authorization: Bearer`, never written anywhere."""
    temperature: float = Field(0.0, ge=0)
    """Of texts that the model writes; log-probabilities are always read at 1."""
    max_new_tokens: int = Field(512, ge=1)
    """Of one text."""
    time_limit_s: float = Field(default=300.0, gt=0)
    """For one request with all its retries."""
    attempt_limit_s: float = Field(default=120.0, gt=0)
    """For one attempt, until the last byte of the answer."""

    @field_validator("url")
    @classmethod
    def _is_http(cls, url: str) -> str:
        return web_address(url).rstrip("/")
