"""Writes a model as a Hugging Face directory that `transformers` and vLLM load, streamed for sharded backends."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import save_file

from rlhf_cluster.errors import ModelError
from rlhf_cluster.models.adapter_files import adapter_of, base_of
from rlhf_cluster.models.load import load_as_trained

if TYPE_CHECKING:
    from transformers import PretrainedConfig

WEIGHTS = ("*.safetensors", "*.safetensors.index.json", "*.bin", "*.bin.index.json", "*.gguf", "*.pt")
OF_A_CHECKPOINT = ("MANIFEST.json", "driver_state.json", "lineage.json")
"""What a model that another job made has beside it; true of that one alone."""


def export_policy(
    weights: Iterable[tuple[str, torch.Tensor]] | None,
    *,
    config: PretrainedConfig,
    source: Path,
    target: Path,
    dtype: torch.dtype,
    max_shard_bytes: int = 4 * 2**30,
) -> None:
    """Fill the existing directory `target`: weights in `dtype`, and all other files of `source`, as the tokenizer's.

    None leaves the weights out, where adapters stand for them.
    """
    left_out = (*WEIGHTS, *OF_A_CHECKPOINT)
    for file in source.iterdir():
        if file.is_file() and not any(file.match(pattern) for pattern in left_out):
            shutil.copyfile(file, target / file.name)
    config.save_pretrained(target)
    config_file = target / "config.json"
    content = json.loads(config_file.read_text())
    content["dtype"] = str(dtype).removeprefix("torch.")
    config_file.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")
    if weights is not None:
        _write_shards(weights, target=target, dtype=dtype, max_shard_bytes=max_shard_bytes)


def export_checkpoint(checkpoint: Path, target: Path) -> None:
    """Make `target` a model of its own out of `checkpoint`: adapters merged, in the dtype that its config names, and
    without what only a job needs to go on. It appears whole or not at all. Raises `ModelError`."""
    if target.exists():
        raise ModelError(f"{target} is there already: name a directory that is not, or remove it")
    adapter = adapter_of(checkpoint)
    described = checkpoint if adapter is None or (checkpoint / "config.json").is_file() else base_of(adapter)
    model = load_as_trained(described, weights=checkpoint)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".export-", ignore_cleanup_errors=True) as scratch:
        made = Path(scratch, "made")
        made.mkdir()
        export_policy(model.named_parameters(), config=model.config, source=described, target=made, dtype=model.dtype)
        made.rename(target)


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
