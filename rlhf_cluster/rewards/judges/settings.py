"""What a job file says about its judge: a rule, a chat model behind an endpoint, or a model of this machine."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, JsonValue, field_validator

from rlhf_cluster.rewards import table
from rlhf_cluster.rewards.endpoint_settings import EndpointSettings
from rlhf_cluster.settings import Settings


class RuleJudgeSettings(Settings):
    """The difference of a reward function's values on the two completions."""

    type: Literal["rule"] = "rule"
    function: str
    """A built-in reward (`word_world`, `vader`, ...) or an import path, as in `[[rewards]]`."""
    args: dict[str, JsonValue] = Field(default_factory=dict)
    """Keyword arguments of the function."""
    scale: float | None = Field(None, gt=0)
    """The judge is as sure as sigmoid(scale * difference); left out, it is wholly sure, or undecided where both are
    worth the same."""
    time_limit_s: float = Field(10.0, gt=0)
    """For the completions of one call together; after it each is tried alone."""

    @field_validator("function")
    @classmethod
    def _is_known(cls, function: str) -> str:
        table.import_path(function)
        return function


class _LetterJudge(Settings):
    """A language model that is shown both completions as options A and B, in both orders."""

    constitution: str | None = None
    """Compare by the principles of this constitution: `word-world`, `general`, or the path of a TOML file. Left out,
    the model is asked for the more helpful, honest and harmless answer."""
    min_letter_mass: float = Field(0.05, ge=0, le=1)
    """Least probability that the letters A and B have together; a model that would rather say something else has not
    judged, and its verdict is invalid."""


class EndpointJudgeSettings(EndpointSettings, _LetterJudge):
    """A chat model behind an OpenAI-compatible endpoint that gives log-probabilities."""

    type: Literal["endpoint"] = "endpoint"
    num_logprobs: int = Field(20, ge=2)
    """Likeliest first tokens asked for; a letter that is not among them counts as the least likely of them. The
    `completions` API of some services allows 5 only."""


class LocalJudgeSettings(_LetterJudge):
    """A causal language model on this machine, loaded beside the driver."""

    type: Literal["model"] = "model"
    model: str
    """Name from `rlhf models list`, or a directory in Hugging Face format. Not the policy: its weights stay as they
    are."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Precision in which it runs."""
    batch_size: int = Field(8, ge=1)
    """Prompts in one forward pass."""
    max_tokens: int | None = Field(None, ge=16)
    """A comparison of more tokens is invalid. Left out: the model's own context length."""


JudgeSettings = Annotated[
    RuleJudgeSettings | EndpointJudgeSettings | LocalJudgeSettings,
    Field(discriminator="type"),
]
