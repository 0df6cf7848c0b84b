"""What a job file says about its critic: a rule, or a chat model behind an endpoint."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from rlhf_cluster.rewards.endpoint_settings import EndpointSettings
from rlhf_cluster.settings import Settings


class RuleCriticSettings(Settings):
    """Rules that find and mend what the principles of the word world forbid."""

    type: Literal["rule"] = "rule"
    name: Literal["word_world"] = "word_world"
    """Which rules; each knows certain principles by their ids."""


class EndpointCriticSettings(EndpointSettings):
    """A chat model behind an OpenAI-compatible endpoint, which writes critiques and revisions."""

    type: Literal["endpoint"] = "endpoint"


CriticSettings = Annotated[RuleCriticSettings | EndpointCriticSettings, Field(discriminator="type")]
