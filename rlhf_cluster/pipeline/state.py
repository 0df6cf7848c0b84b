"""`pipeline.json` of a pipeline's directory: every making of every stage, by which a run goes on after the last one.

Written whole at every change. What was made from other settings stays listed, and is used again when they come back.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from rlhf_cluster.driver.whole_file import write_whole
from rlhf_cluster.errors import StorageError
from rlhf_cluster.pipeline.ingredients import Ingredients

FILE_NAME = "pipeline.json"
Record = TypeVar("Record", bound=BaseModel)


class Output(BaseModel):
    model_config = ConfigDict(frozen=True)

    path: str
    """Within the job directory."""
    digest: str


class Making(BaseModel):
    """One time that a stage was run, or is."""

    model_config = ConfigDict(frozen=True)

    stage: str
    number: int
    """1 for the first making of the stage."""
    digest: str
    """Of the ingredients."""
    ingredients: Ingredients
    status: Literal["running", "succeeded", "failed"]
    """`running` also where it was interrupted: it goes on from its ledger."""
    message: str = ""
    """Why it failed."""
    started_s: float
    """Unix time."""
    ended_s: float = 0.0
    """Unix time; 0 until it has succeeded or failed."""
    outputs: dict[str, Output] = {}
    """By name, once it has succeeded."""

    @property
    def job_dir(self) -> str:
        """Name of its job directory, within the pipeline's."""
        return f"{self.stage}-{self.number}"


class State(BaseModel):
    model_config = ConfigDict(frozen=True)

    pipeline: str
    seed: int
    makings: tuple[Making, ...] = ()
    """Oldest first."""

    def of(self, stage: str) -> tuple[Making, ...]:
        return tuple(making for making in self.makings if making.stage == stage)

    def with_making(self, making: Making) -> State:
        """Added, or in the place of its former self."""
        makings = {(known.stage, known.number): known for known in self.makings}
        makings[making.stage, making.number] = making
        return self.model_copy(update={"makings": tuple(makings.values())})


def read_state(directory: Path, *, pipeline: str, seed: int) -> State:
    """An empty one where there is none yet. Raises `StorageError`."""
    file = directory / FILE_NAME
    if not file.exists():
        return State(pipeline=pipeline, seed=seed)
    return read_record(State, file, otherwise="move it away: then every stage is run anew")


def write_state(directory: Path, state: State) -> None:
    write_whole(directory / FILE_NAME, state.model_dump_json(indent=1) + "\n")


def read_record(kind: type[Record], file: Path, *, otherwise: str) -> Record:
    """The record of class `kind` that `file` holds as JSON. Raises `StorageError`, which says what can be done."""
    try:
        return kind.model_validate_json(file.read_bytes())
    except OSError as error:
        why = str(error.strerror)
    except ValidationError as error:
        first = error.errors()[0]
        why = ": ".join(filter(None, (".".join(map(str, first["loc"])), first["msg"])))
    raise StorageError(f"{file} cannot be read: {why}. Restore it from a copy, or {otherwise}")
