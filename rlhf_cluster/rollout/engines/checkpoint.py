"""What an engine must know of a model directory before it opens it: precision, end tokens, context, parameters.

Everything but `parameter_shapes` reads two small JSON files and imports nothing heavy.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from rlhf_cluster.errors import ModelError

Precision = Literal["auto", "bfloat16", "float16", "float32"]


def read_config(model_path: Path) -> dict[str, Any]:
    """`config.json` of a Hugging Face model directory. Raises `ModelError` when there is none."""
    path = model_path / "config.json"
    if not path.is_file():
        raise ModelError(f"{model_path} is no model directory: config.json is missing. See `rlhf models list`")
    return json.loads(path.read_text())


def resolve_dtype(precision: Precision, model_path: Path) -> str:
    """The precision an engine serves in: as asked, or for `auto` the one the checkpoint is stored in."""
    if precision != "auto":
        return precision
    config = read_config(model_path)
    return config.get("dtype") or config.get("torch_dtype") or "float32"


def end_of_sequence_ids(model_path: Path) -> tuple[int, ...]:
    """All token ids that end a completion, from `config.json` and `generation_config.json`, ascending."""
    named = [read_config(model_path).get("eos_token_id")]
    generation = model_path / "generation_config.json"
    if generation.is_file():
        named.append(json.loads(generation.read_text()).get("eos_token_id"))
    ids: set[int] = {token for entry in named if entry is not None for token in _as_list(entry)}
    return tuple(sorted(ids))


def _as_list(entry: int | list[int]) -> list[int]:
    return entry if isinstance(entry, list) else [entry]


def resolve_context(max_context: int | None, model_path: Path) -> int:
    """Prompt plus completion tokens of a sequence: as asked, at most what the model's positions allow."""
    config = read_config(model_path)
    positions = config.get("max_position_embeddings") or config.get("n_positions")
    if max_context is None:
        if positions is None:
            raise ModelError(f"{model_path} does not say how long its context is: set max_context of the engine")
        return positions
    if positions is not None and max_context > positions:
        raise ModelError(
            f"max_context = {max_context} is more than the {positions} positions of {model_path}: "
            f"set it to {positions} or less"
        )
    return max_context


def parameter_shapes(model_path: Path) -> dict[str, tuple[int, ...]]:
    """Shapes of all parameters under their Hugging Face names; a tied output head appears once, as the embedding.

    Builds the network without memory, so it costs an import and some milliseconds.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from rlhf_cluster.models.load import ONE_AT_A_TIME

    with ONE_AT_A_TIME, torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(model_path))
    return {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
