"""Where a directory keeps low-rank adapters, and which model they are for: peft's files, read without torch.

A checkpoint of a job that trains adapters has them in `adapter/`, so that what lies beside it, weights or none, is a
model of its own. A directory that others made has them at its top.
"""

from __future__ import annotations

import json
from pathlib import Path

from rlhf_cluster.errors import ModelError

FOLDER = "adapter"
CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
MAX_BASES = 8
"""Adapters on a model that is adapters on another; more are a mistake."""


def adapter_of(path: Path) -> Path | None:
    """The directory of adapters that the model at `path` needs; None where its weights are there, or there are none."""
    if any(path.glob("model*.safetensors")) or any(path.glob("pytorch_model*.bin")):
        return None
    return next((each for each in (path / FOLDER, path) if (each / CONFIG).is_file()), None)


def base_of(adapter: Path) -> Path:
    """The model that the adapters in the directory `adapter` are for. Raises `ModelError` where it is not here."""
    file = adapter / CONFIG
    try:
        named = json.loads(file.read_text())["base_model_name_or_path"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{file} does not say which model these adapters are for: {error!r}") from error
    if not isinstance(named, str) or not Path(named).is_dir():
        raise ModelError(
            f"the adapters in {adapter} are for the model {named}, which is no directory here: write where it is into "
            f"base_model_name_or_path of {file}"
        )
    return Path(named)


def whole_model(path: Path) -> Path:
    """The directory whose weights the model at `path` begins from: itself, or the one below all adapters."""
    for _ in range(MAX_BASES):
        adapter = adapter_of(path)
        if adapter is None:
            return path
        path = base_of(adapter)
    raise ModelError(f"{path} is reached over more than {MAX_BASES} adapters on each other: merge them, `rlhf export`")
