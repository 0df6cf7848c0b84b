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
OF_A_CHECKPOINT = ("MANIFEST.json", "driver_state.json", "lineage.json")
"""What a model that another job made has beside it; true of that one alone."""


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
    left_out = (*WEIGHTS, *OF_A_CHECKPOINT)
    for file in source.iterdir():
        if file.is_file() and not any(file.match(pattern) for pattern in left_out):
            shutil.copyfile(file, target / file.name)
    config.save_pretrained(target)
    config_file = target / "config.json"
    content = json.loads(config_file.read_text())
    content["dtype"] = str(dtype).removeprefix("torch.")
    config_file.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")
    _write_shards(weights, target=target, dtype=dtype, max_shard_bytes=max_shard_bytes)


def _write_shards(
    weights: Iterable[tuple[str, torch.Tensor]], *, target: Path, dtype: torch.dtype, max_shard_bytes: int
) -> None:
    """One shard is in memory at a time; the files get their names, which count them, at the end."""
    shards: list[tuple[Path, list[str]]] = []
    shard: dict[str, torch.Tensor] = {}
    total_bytes = shard_bytes = 0

    def write() -> None:
        file = target / f"shard-{len(shards) + 1:05d}.safetensors"
        save_file(shard, file, metadata={"format": "pt"})
        shards.append((file, list(shard)))
        shard.clear()

    for name, tensor in weights:
        cast = tensor.detach().to(device="cpu", dtype=dtype).contiguous()
        if shard and shard_bytes + cast.nbytes > max_shard_bytes:
            write()
            shard_bytes = 0
        shard[name] = cast
        shard_bytes += cast.nbytes
        total_bytes += cast.nbytes
    write()
    _name_shards(shards, target=target, total_bytes=total_bytes)


def _name_shards(shards: list[tuple[Path, list[str]]], *, target: Path, total_bytes: int) -> None:
    if len(shards) == 1:
        shards[0][0].rename(target / "model.safetensors")
        return
    weight_map: dict[str, str] = {}
    for number, (file, names) in enumerate(shards, start=1):
        final = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        file.rename(target / final)
        weight_map |= dict.fromkeys(names, final)
    index = {"metadata": {"total_size": total_bytes}, "weight_map": weight_map}
    (target / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")
