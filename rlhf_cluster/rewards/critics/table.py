"""From a critic's settings to the critic."""

from __future__ import annotations

from rlhf_cluster.rewards.critics.base import Critic
from rlhf_cluster.rewards.critics.endpoint import EndpointCritic
from rlhf_cluster.rewards.critics.rules import make_rule
from rlhf_cluster.rewards.critics.settings import CriticSettings, EndpointCriticSettings


def make_critic(settings: CriticSettings) -> Critic:
    """Raises `ConfigError` for what the settings name and is not there."""
    if isinstance(settings, EndpointCriticSettings):
        return EndpointCritic(settings)
    return make_rule(settings.name, settings.args)


def critic_label(settings: CriticSettings) -> str:
    """Who criticised, in one line of provenance; no address and no key."""
    return f"endpoint:{settings.model}" if isinstance(settings, EndpointCriticSettings) else f"rule:{settings.name}"
