"""What a learner trains, opened from its checkpoint: a policy, a policy with a critic, or a reward model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch

from rlhf_cluster.models.load import begin_reward_model, load_causal_lm, load_trunk
from rlhf_cluster.models.policy import Critic, PolicyNetwork
from rlhf_cluster.models.reward import RewardNetwork

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TrainedNetwork = PolicyNetwork | RewardNetwork


def open_network(
    model: Literal["policy", "policy_and_critic", "reward_model"],
    path: Path,
    *,
    temperature: float,
    logit_chunk_rows: int,
    critic_path: Path | None,
    gradient_checkpointing: bool = False,
) -> TrainedNetwork:
    """On the CPU, in float32. `critic_path` is what a critic's own trunk begins from; None has it read the policy's."""
    if model == "reward_model":
        classifier = begin_reward_model(path, dtype=torch.float32)
        _checkpointed(classifier, gradient_checkpointing)
        return RewardNetwork(classifier)
    language_model = load_causal_lm(path, dtype=torch.float32)
    _checkpointed(language_model, gradient_checkpointing)
    critic = None
    if model == "policy_and_critic":
        trunk = None if critic_path is None else load_trunk(critic_path, dtype=torch.float32)
        if trunk is not None:
            _checkpointed(trunk, gradient_checkpointing)
        critic = Critic((trunk or language_model).config.get_text_config().hidden_size, trunk=trunk)
    return PolicyNetwork(language_model, temperature=temperature, logit_chunk_rows=logit_chunk_rows, critic=critic)


def _checkpointed(model: PreTrainedModel, wanted: bool) -> None:
    if wanted:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        model.train()
