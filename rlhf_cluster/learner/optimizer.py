"""AdamW, its parameter groups, and the learning rate as a pure function of the step."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from rlhf_cluster.learner.settings import OptimizerSettings


LR_SCALE = "lr_scale"
"""Of a parameter group: its learning rate over that of the schedule."""


def build_optimizer(
    network: nn.Module, settings: OptimizerSettings, *, critic_lr: float | None = None
) -> torch.optim.AdamW:
    """Fused AdamW over the trainable parameters; vectors (norms, biases) are not decayed, and what is called `critic`
    has a peak learning rate of its own."""
    trainable = [(name, each) for name, each in network.named_parameters() if each.requires_grad]
    groups = []
    for of_critic, scale in ((False, 1.0), (True, (critic_lr or settings.lr) / settings.lr)):
        mine = [each for name, each in trainable if name.startswith("critic.") == of_critic]
        groups += [
            {"params": [p for p in mine if p.ndim > 1], "weight_decay": settings.weight_decay, LR_SCALE: scale},
            {"params": [p for p in mine if p.ndim <= 1], "weight_decay": 0.0, LR_SCALE: scale},
        ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=settings.lr,
        betas=settings.betas,
        eps=settings.eps,
        fused=True,
    )


def learning_rate(settings: OptimizerSettings, *, step: int, num_steps: int) -> float:
    """Rate of optimizer step `step` (from 0) of `num_steps`: linear warm-up, then the schedule."""
    if step < settings.warmup_steps:
        return settings.lr * (step + 1) / settings.warmup_steps
    if settings.schedule == "constant":
        return settings.lr
    done = (step - settings.warmup_steps) / max(num_steps - settings.warmup_steps, 1)
    return settings.lr * ((1 - done) if settings.schedule == "linear" else 0.5 * (1 + math.cos(math.pi * done)))
