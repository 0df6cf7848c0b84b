"""What a job file says about its rewards: where each runs, its weight, its bounds, and the servers that hold them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import PurePath
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import Discriminator, Field, JsonValue, Tag, field_validator, model_validator

from rlhf_cluster.errors import ConfigError
from rlhf_cluster.rewards import table
from rlhf_cluster.settings import Resources, Settings

RewardName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=64)]


class _Reward(Settings):
    """What all rewards have."""

    name: RewardName | None = None
    """Its name in the breakdown and in metrics; left out, it is taken from the function, model directory or host."""
    weight: float = 1.0
    """Its factor in the sum. A reward of weight 0 is only watched: its failures invalidate nothing."""

    @property
    def label(self) -> str:
        """`name`, or the name derived when none is given."""
        return self.name or re.sub(r"[^A-Za-z0-9_.-]+", "_", self._derived_name()).strip("_.-") or "reward"

    def _derived_name(self) -> str:
        raise NotImplementedError


class FunctionReward(_Reward):
    """A Python function, run in the server's process pool."""

    type: Literal["function"] = "function"
    function: str
    """A built-in name (`vader`, `number_match`, ...) or the import path of your own, `package.module:attribute`."""
    time_limit_s: float = Field(default=10.0, gt=0)
    """For the completions of one group together. When it passes, each is tried again alone under the same limit."""
    args: dict[str, JsonValue] = Field(default_factory=dict)
    """Keyword arguments of the function."""

    @field_validator("function")
    @classmethod
    def _is_known(cls, function: str) -> str:
        table.import_path(function)
        return function

    @model_validator(mode="after")
    def _built_in_takes_args(self) -> FunctionReward:
        # The built-in files import their libraries only when called, so this stays cheap and offline.
        if self.function in table.BUILT_IN:
            table.load(self.function, self.args)
        return self

    def check(self) -> None:
        """Import the function and check `args` against it. Raises `ConfigError`. Runs the outside module's code."""
        table.load(self.function, self.args)

    def _derived_name(self) -> str:
        return self.function.rpartition(":")[2]


class ModelReward(_Reward):
    """A sequence-classification model with one output, run in a thread of the server."""

    type: Literal["model"] = "model"
    path: str
    """Directory in Hugging Face format."""
    reads: Literal["text", "tokens"] = "text"
    """`text`: prompt and completion, in the reward model's own tokenizer. `tokens`: the policy's token ids as sampled,
    for a reward model that shares the policy's tokenizer."""
    append_eos: bool = True
    """With `text`: end a completion that stopped by itself with the end-of-sequence token."""
    batch_size: int = Field(default=16, ge=1)
    """Sequences in one forward pass."""
    max_tokens: int | None = Field(default=None, ge=1)
    """Longer inputs lose their beginning. Left out: the model's own context length."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Precision of the model; `auto` is the checkpoint's."""
    device: str | None = None
    """`cpu`, `cuda`, ...; left out: the GPU when the server has one."""
    num_threads: int | None = Field(default=None, ge=1)
    """Threads of torch; left out: as torch finds them."""
    time_limit_s: float = Field(default=120.0, gt=0)
    """For the completions of one group, waiting for the model included."""

    def _derived_name(self) -> str:
        return PurePath(self.path).name


class RequestBounds(Settings):
    """How patiently a web service is asked."""

    num_concurrent: int = Field(default=8, ge=1)
    """Requests under way at once, at most."""
    time_limit_s: float = Field(default=60.0, gt=0)
    """For one request with all its retries."""
    attempt_limit_s: float = Field(default=20.0, gt=0)
    """For one attempt, until the last byte of the answer."""
    num_retries: int = Field(default=4, ge=0)
    """After timeouts, lost connections and the statuses 408, 429 and 5xx."""
    backoff_s: float = Field(default=0.5, ge=0)
    """Longest wait before the first retry; it doubles with every further one, and the wait is drawn below it."""
    max_body_bytes: int = Field(default=1 << 20, ge=1)
    """A longer answer is refused."""


class HttpReward(RequestBounds, _Reward):
    """A remote service: POST `{"samples": [...]}`, which answers `{"rewards": [...]}`."""

    type: Literal["http"] = "http"
    url: str
    """`http://` or `https://`. Redirects are not followed, and proxy variables of the environment are not used."""
    headers: dict[str, str] = Field(default_factory=dict)
    """Sent with every request. A value `env:NAME` is read from the server's environment, so that no secret stands in
    the job file."""
    batch_size: int = Field(default=64, ge=1)
    """Samples in one request, at most."""

    @field_validator("url")
    @classmethod
    def _is_http(cls, url: str) -> str:
        return web_address(url)

    def _derived_name(self) -> str:
        return urlsplit(self.url).hostname or ""


def web_address(url: str) -> str:
    """The address as it is. Raises `ConfigError` for what is none."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0:
        raise ConfigError(f"url {url!r} is no web address; it starts with http:// or https:// and names a host")
    return url


def _type_of(reward: Any) -> str | None:
    return reward.get("type", "function") if isinstance(reward, dict) else getattr(reward, "type", None)


RewardSettings = Annotated[
    Annotated[FunctionReward, Tag("function")]
    | Annotated[ModelReward, Tag("model")]
    | Annotated[HttpReward, Tag("http")],
    Discriminator(
        _type_of,
        custom_error_type="reward_type",
        custom_error_message="a reward's `type` is 'function' (also when left out), 'model' or 'http'",
    ),
]
"""One reward of a job. `type` may be left out for a function."""


class RewardServerSettings(Settings):
    """The reward servers of a job. All of them hold all rewards."""

    num_workers: int = Field(default=1, ge=1)
    """Reward servers."""
    spares: int = Field(default=0, ge=0)
    """Servers kept warm besides, to take the place of a lost one at once."""
    num_processes: int = Field(default=1, ge=1)
    """Processes in each server that run reward functions."""
    max_process_memory_mib: int | None = Field(default=4096, ge=64)
    """Data memory of one such process; asking for more raises `MemoryError` in the function. None for no bound."""
    max_invalid_rate: float = Field(default=0.1, ge=0, le=1)
    """Share of failed rewards at which the job stops; counted for each reward over its last `invalid_window` ones."""
    invalid_window: int = Field(default=256, ge=1)
    """Completions over which `max_invalid_rate` is taken. The job stops at the first failure past
    `max_invalid_rate * invalid_window`, even while the window is not full."""
    cpus: float = Field(default=1.0, ge=0)
    """CPUs of one server, its processes included."""
    gpus: float = Field(default=0.0, ge=0)
    """GPUs of one server; only model rewards use them."""
    resources: Resources = Field(default_factory=dict)
    """Other resources of a Ray cluster that each server reserves, as in `{fast = 1}`: a node must have them. The
    local runtime passes them over."""


def check_rewards(rewards: Sequence[FunctionReward | ModelReward | HttpReward]) -> None:
    """Raise `ConfigError` when two rewards have the same name, or none has a weight."""
    if not any(reward.weight for reward in rewards):
        raise ConfigError("no reward has a weight other than 0, so nothing could be learnt; add one, or raise a weight")
    for label, count in Counter(reward.label for reward in rewards).items():
        if count > 1:
            raise ConfigError(f"{count} rewards are called {label!r}; give each its own `name`")
