"""Freezes the lower part of a model: what is near its input stays as it is, and costs little."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


def freeze_lower_layers(model: nn.Module, *, train_last_layers: int, frozen_dtype: torch.dtype) -> None:
    """Leave only the last N decoder layers, the final norm and the head of a classifier trainable; keep the rest in
    `frozen_dtype`.

    Frozen weights need no fp32 master copy, and below the first trained layer autograd records nothing.
    """
    trunk: Any = getattr(model, "base_model", model)
    if train_last_layers > len(trunk.layers):
        raise ValueError(
            f"learner.train_last_layers = {train_last_layers}, but this model has {len(trunk.layers)} layers: "
            "lower it, or leave it out to train everything"
        )
    head: Any = getattr(model, "score", None)
    kept = (*trunk.layers[-train_last_layers:], trunk.norm, *([] if head is None else [head]))
    trained = {id(p) for module in kept for p in module.parameters()}
    for parameter in model.parameters():
        if id(parameter) not in trained:
            parameter.requires_grad_(False)
            parameter.data = parameter.data.to(frozen_dtype)
