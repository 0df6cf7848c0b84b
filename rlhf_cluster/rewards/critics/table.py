"""From a critic's settings to the critic."""

from __future__ import annotations

from rlhf_cluster.rewards.critics.base import Critic
from rlhf_cluster.rewards.critics.endpoint import EndpointCritic
from rlhf_cluster.rewards.critics.settings import CriticSettings, EndpointCriticSettings
from rlhf_cluster.rewards.critics.word_world import WordWorldCritic


def make_critic(settings: CriticSettings) -> Critic:
    """Raises `ConfigError` for what the settings name and is not there."""
    return EndpointCritic(settings) if isinstance(settings, EndpointCriticSettings) else WordWorldCritic()


def critic_label(settings: CriticSettings) -> str:
    """Who criticised, in one line of provenance; no address and no key."""
    return f"endpoint:{settings.model}" if isinstance(settings, EndpointCriticSettings) else f"rule:{settings.name}"
