"""What a learner trains, opened from its checkpoint: a policy, a policy with a critic, or a reward model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from rlhf_cluster.models import lora
from rlhf_cluster.models.freeze import freeze_lower_layers
from rlhf_cluster.models.load import begin_reward_model, load_causal_lm, load_trunk
from rlhf_cluster.models.policy import Critic, PolicyNetwork
from rlhf_cluster.models.reward import RewardNetwork

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from rlhf_cluster.models.settings import LoraSettings

TrainedNetwork = PolicyNetwork | RewardNetwork


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """Which part of a network is trained, at which memory."""

    lora: LoraSettings | None = None
    """Adapters; None trains the weights themselves."""
    last_layers: int | None = None
    """Only the last N decoder layers; None is all."""
    frozen_dtype: torch.dtype = torch.float32
    """Of what is not trained. What is trained is in float32."""
    gradient_checkpointing: bool = False

    @property
    def quantise(self) -> str:
        return self.lora.quantise if self.lora else "none"

    @property
    def loaded_dtype(self) -> torch.dtype:
        return torch.float32 if self.quantise == "none" else self.frozen_dtype


def open_network(
    model: Literal["policy", "policy_and_critic", "reward_model"],
    path: Path,
    *,
    temperature: float,
    logit_chunk_rows: int,
    critic_path: Path | None,
    trained: Trained = Trained(),
) -> TrainedNetwork:
    """On the CPU (on the GPU where it is quantised). `critic_path` is what a critic's own trunk begins from; None has
    it read the policy's."""
    loading: dict[str, Any] = {"dtype": trained.loaded_dtype, "quantise": trained.quantise}
    if model == "reward_model":
        classifier = begin_reward_model(path, **loading)
        _prepare(classifier, trained, base=path, trained_modules=("score",))
        return RewardNetwork(classifier)
    language_model = load_causal_lm(path, **loading)
    _prepare(language_model, trained, base=path)
    critic = None
    if model == "policy_and_critic":
        trunk = None
        if critic_path is not None:
            trunk = load_trunk(critic_path, **loading)
            _prepare(trunk, trained, base=critic_path)
        critic = Critic((trunk or language_model).config.get_text_config().hidden_size, trunk=trunk)
    return PolicyNetwork(language_model, temperature=temperature, logit_chunk_rows=logit_chunk_rows, critic=critic)


def _prepare(model: PreTrainedModel, trained: Trained, *, base: Path, trained_modules: Sequence[str] = ()) -> None:
    if trained.lora is not None:
        lora.attach(
            model,
            trained.lora,
            base=base,
            frozen_dtype=trained.frozen_dtype,
            last_layers=trained.last_layers,
            trained_modules=trained_modules,
        )
    elif trained.last_layers is not None:
        freeze_lower_layers(model, train_last_layers=trained.last_layers, frozen_dtype=trained.frozen_dtype)
    if trained.gradient_checkpointing:
        _checkpointed(model)


def _checkpointed(model: PreTrainedModel) -> None:
    """Layers are computed once more in the backward pass."""
    from transformers.modeling_layers import GradientCheckpointingLayer

    model.gradient_checkpointing_enable({"use_reentrant": False})
    # Transformers does so only in a layer that is in training mode. What is inside of the layers stays in eval mode:
    # its dropout would make a policy's probabilities those of another one.
    for module in model.modules():
        if isinstance(module, GradientCheckpointingLayer):
            module.training = True
