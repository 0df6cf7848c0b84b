"""What a job file says about its critic: a rule, or a chat model behind an endpoint."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, JsonValue, field_validator

from rlhf_cluster.rewards.critics.rules import rule_path
from rlhf_cluster.rewards.endpoint_settings import EndpointSettings
from rlhf_cluster.settings import Settings


class RuleCriticSettings(Settings):
    """Rules that find and mend what certain principles forbid, which they know by their ids."""

    type: Literal["rule"] = "rule"
    name: str = "word_world"
    """`word_world`, for the two principles of that constitution, or the import path `package.module:Class` of a critic
    of one's own."""
    args: dict[str, JsonValue] = Field(default_factory=dict)
    """Keyword arguments of the class."""

    @field_validator("name")
    @classmethod
    def _is_known(cls, name: str) -> str:
        rule_path(name)
        return name


class EndpointCriticSettings(EndpointSettings):
    """A chat model behind an OpenAI-compatible endpoint, which writes critiques and revisions."""

    type: Literal["endpoint"] = "endpoint"


CriticSettings = Annotated[RuleCriticSettings | EndpointCriticSettings, Field(discriminator="type")]
