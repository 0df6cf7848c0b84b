"""How large a model is, from its files' headers alone: no weights are read and torch is not imported."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rlhf_cluster.errors import ModelError
from rlhf_cluster.models.adapter_files import whole_model

MAX_HEADER_BYTES = 100 * 2**20
"""As in safetensors itself; a longer one is a damaged file."""
LAYER = re.compile(r"\.layers\.(\d+)\.")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSize:
    num_parameters: int
    num_layers: int
    hidden_size: int
    vocab_size: int
    layer_parameters: int
    """Of one decoder layer."""
    layer_matrices: tuple[tuple[str, tuple[int, int]], ...]
    """(last part of the module's name, (outputs, inputs)) of every matrix of one decoder layer."""


def model_size(path: Path) -> ModelSize:
    """Raises `ModelError` where the config or the safetensors headers cannot be read."""
    try:
        config = json.loads((path / "config.json").read_text())
        files = sorted(whole_model(path).glob("*.safetensors"))
        shapes = {name: shape for file in files for name, shape in _header(file).items()}
        if not shapes:
            raise ValueError("there is no *.safetensors file")
        layers = [math.prod(shape) for name, shape in shapes.items() if LAYER.search(name)]
        num_layers = int(config["num_hidden_layers"])
        return ModelSize(
            num_parameters=sum(math.prod(shape) for shape in shapes.values()),
            num_layers=num_layers,
            hidden_size=int(config["hidden_size"]),
            vocab_size=int(config["vocab_size"]),
            layer_parameters=sum(layers) // num_layers,
            layer_matrices=tuple(sorted(_matrices(shapes))),
        )
    except (OSError, ValueError, KeyError, TypeError, ZeroDivisionError) as error:
        raise ModelError(f"{path}: its size cannot be read from config.json and *.safetensors: {error!r}") from error


def _matrices(shapes: Mapping[str, Sequence[int]]) -> Iterator[tuple[str, tuple[int, int]]]:
    """Those of the first decoder layer: all are alike."""
    for name, shape in shapes.items():
        layer = LAYER.search(name)
        if layer and layer[1] == "0" and len(shape) == 2:
            yield name.removesuffix(".weight").rpartition(".")[2], (shape[0], shape[1])


def _header(file: Path) -> dict[str, list[int]]:
    with file.open("rb") as stream:
        num_bytes = int.from_bytes(stream.read(8), "little")
        if num_bytes > MAX_HEADER_BYTES:
            raise ValueError(f"{file.name} claims a header of {num_bytes} bytes")
        content = json.loads(stream.read(num_bytes))
    return {name: entry["shape"] for name, entry in content.items() if name != "__metadata__"}
