"""Writes a policy as a Hugging Face directory that `transformers` and vLLM load, streamed for sharded backends."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import save_file

if TYPE_CHECKING:
    from transformers import PretrainedConfig

WEIGHTS = ("*.safetensors", "*.safetensors.index.json", "*.bin", "*.bin.index.json", "*.gguf", "*.pt")


def export_policy(
    weights: Iterable[tuple[str, torch.Tensor]],
    *,
    config: PretrainedConfig,
    source: Path,
    target: Path,
    dtype: torch.dtype,
    max_shard_bytes: int = 4 * 2**30,
) -> None:
    """Fill the existing directory `target`: weights in `dtype`, and all other files of `source`, as the tokenizer's."""
    shutil.copytree(source, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns(*WEIGHTS))
    config.save_pretrained(target)
    config_file = target / "config.json"
    content = json.loads(config_file.read_text())
    content["dtype"] = str(dtype).removeprefix("torch.")
    config_file.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")
    _write_shards(weights, target=target, dtype=dtype, max_shard_bytes=max_shard_bytes)


def _write_shards(
    weights: Iterable[tuple[str, torch.Tensor]], *, target: Path, dtype: torch.dtype, max_shard_bytes: int
) -> None:
    shards: list[dict[str, torch.Tensor]] = [{}]
    num_bytes = total_bytes = 0
    for name, tensor in weights:
        cast = tensor.detach().to(device="cpu", dtype=dtype).contiguous()
        if num_bytes and num_bytes + cast.nbytes > max_shard_bytes:
            shards.append({})
            num_bytes = 0
        shards[-1][name] = cast
        num_bytes += cast.nbytes
        total_bytes += cast.nbytes
    if len(shards) == 1:
        save_file(shards[0], target / "model.safetensors", metadata={"format": "pt"})
        return
    weight_map = {}
    for number, shard in enumerate(shards, start=1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        save_file(shard, target / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(shard, file)
    index = {"metadata": {"total_size": total_bytes}, "weight_map": weight_map}
    (target / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")
