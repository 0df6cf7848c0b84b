"""What lies on disk, as a digest: a file, a directory, a model, and the Python code that a stage runs.

Digests are xxh3 (https://xxhash.com), as those of checkpoints: they find whatever has changed at the speed of the disk,
and are no guard against an attacker.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

import xxhash

import rlhf_cluster
from rlhf_cluster.driver.checkpoint_manifest import MANIFEST, described, sealed
from rlhf_cluster.driver.checkpoints import STATE_FILE
from rlhf_cluster.errors import CheckpointCorrupt
from rlhf_cluster.models.registry import models_dir, resolve
from rlhf_cluster.pipeline.graph import leaves, reference_of

LINEAGE_FILE = "lineage.json"
BESIDE_A_MODEL = (MANIFEST, STATE_FILE, LINEAGE_FILE, "learner_state.pt", "generators_rank-*.pt")
"""In the directory of a model, and no part of it: two trainings that end in the same weights have made the same."""
ROOMS_WITHOUT_EFFECT = ("cli", "client", "pipeline", "recipes", "relay", "service", "testing", "wire")
"""Our own code that no figure of a job depends on."""
NOT_READ = ("output_dir", "weights.directory", "name", "description")
"""Settings that name no input, whatever lies on disk under that name."""
SOURCES = (".py", ".toml", ".yaml", ".json", ".jsonl", ".txt")
"""Endings of what counts as code: Python, and the data that comes with it."""
IMPORT_PATH = re.compile(r"([A-Za-z_]\w*(?:\.\w+)*):[A-Za-z_]\w*")


def digest_of(data: Any) -> str:
    """Of anything that is JSON; the order of keys does not count."""
    return xxhash.xxh3_128_hexdigest(json.dumps(data, sort_keys=True).encode())


def content_digest(path: Path) -> str:
    """Of a file's bytes, or of the names and bytes of a directory's files. Of a checkpoint, which has a manifest, only
    that and the sizes are read. Raises `OSError`, and `CheckpointCorrupt`."""
    if not path.is_dir():
        return described(path)["xxh3_128"]
    if (path / MANIFEST).is_file():
        files = sealed(path)
        _check_sizes(path, files)
    else:
        files = {str(file.relative_to(path)): described(file) for file in sorted(path.rglob("*")) if file.is_file()}
    counted = {name: file["xxh3_128"] for name, file in files.items() if not _is_beside(Path(name))}
    return digest_of(counted)


def _check_sizes(checkpoint: Path, files: Mapping[str, Mapping[str, Any]]) -> None:
    for name, expected in files.items():
        file = checkpoint / name
        if not file.is_file() or file.stat().st_size != expected["bytes"]:
            raise CheckpointCorrupt(f"{checkpoint} is not whole: {name} is missing or cut off")


def _is_beside(name: Path) -> bool:
    return any(name.match(pattern) for pattern in BESIDE_A_MODEL)


def inputs_on_disk(job: Mapping[str, Any]) -> dict[str, Path]:
    """Dotted key -> what that setting of a whole `JobConfig` names on this machine.

    A `model` and a `path`, where something of that name is there, and any value that is the name of a file and no mere
    word; the model that is trained has to be there. Raises `ModelError`.
    """
    found: dict[str, Path] = {"model": resolve(job["model"])} if not reference_of(job["model"], key="model") else {}
    for key, value in leaves(job):
        if key in found or not isinstance(value, str) or not value or key in NOT_READ:
            continue
        path = _named(key.rpartition(".")[2], value)
        if path is not None:
            found[key] = path
    return found


def _named(key: str, value: str) -> Path | None:
    is_model = key == "model" or key.endswith("_model")
    if is_model and "/" not in value and (models_dir() / value).is_dir():
        return models_dir() / value
    path = os.path.expanduser(value)  # which, as `exists`, takes any text: most of it names nothing
    is_place = is_model or key == "path" or key.endswith("_path")
    is_there = os.path.exists(path) if is_place else os.path.isfile(path) and not path.isalnum()
    return Path(path) if is_there else None


def code_digests(job: Mapping[str, Any]) -> dict[str, str]:
    """Package -> digest of its sources: ours, as far as a job runs it, and those that settings name by import
    path, such as a reward of your own. Imports nothing."""
    paths = (IMPORT_PATH.fullmatch(value) for _, value in leaves(job) if isinstance(value, str))
    packages = {match[1].partition(".")[0] for match in paths if match} - {"rlhf_cluster"}
    outside = {name: place for name in sorted(packages) if (place := _place_of(name))}
    return {"rlhf_cluster": _our_code()} | {
        name: _source_digest([place], root=place) for name, place in outside.items()
    }


@cache
def _our_code() -> str:
    root = Path(rlhf_cluster.__file__).parent
    rooms = sorted(path for path in root.iterdir() if path.stem not in ROOMS_WITHOUT_EFFECT)
    return _source_digest(rooms, root=root)


def _place_of(package: str) -> Path | None:
    """Its directory, with `__init__.py` or without, or its file where it is a single one; None where it is not found,
    as when it is built in."""
    spec = PathFinder.find_spec(package, [str(Path.cwd()), *sys.path])
    if spec is None:
        return None
    if spec.submodule_search_locations:
        return Path(next(iter(spec.submodule_search_locations)))
    return Path(spec.origin) if spec.origin and spec.origin.endswith(".py") else None


def _source_digest(places: Iterable[Path], *, root: Path) -> str:
    files = [file for place in places for file in ([place] if place.is_file() else sorted(place.rglob("*")))]
    counted = [file for file in files if file.suffix in SOURCES and file.is_file()]
    return digest_of({str(file.relative_to(root)): described(file)["xxh3_128"] for file in counted})
