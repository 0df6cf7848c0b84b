"""A pipeline as its file says it: stages by name, each a job and what differs in it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, StringConstraints, model_validator

from rlhf_cluster.errors import ConfigError
from rlhf_cluster.settings import Settings

StageName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,31}$")]


class StageSettings(Settings):
    """One stage. A value that is `{stage.output}` is that output of the other stage, which therefore goes first."""

    job: str | dict[str, Any]
    """A job file, named from the directory of the pipeline's file; a recipe's name; or the job itself, as a table."""
    with_: dict[str, Any] = Field(default_factory=dict, alias="with")
    """What differs: `model = "{sft.model}"`, `"train.num_steps" = 5`, `"rewards.0.weight" = 0.5`. Tables are merged
    key by key; one that says its `type` takes the place of what was there."""


class PipelineConfig(Settings):
    """Everything that a pipeline's file holds."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")
    """Lower-case letters, digits and dashes."""
    description: str = ""
    """One line for whoever reads the file."""
    seed: int = Field(0, ge=0)
    """The seed of every stage, unless its `with` has another."""
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = ()
    """In place of `seed`: all stages run once for each of these, in directories of their own."""
    output_dir: Path = Path("runs")
    """The pipeline's directory is made inside."""
    defaults: dict[str, Any] = Field(default_factory=dict)
    """What every stage's job begins with; its own keys go over these, tables key by key."""
    stages: dict[StageName, StageSettings] = Field(min_length=1)
    """In any order: which goes first follows from the references."""

    @model_validator(mode="after")
    def _names_are_clear(self) -> PipelineConfig:
        if len(set(self.seeds)) < len(self.seeds):
            raise ConfigError(f"seeds = {list(self.seeds)} holds one twice")
        if taken := self.stages.keys() & type(self).model_fields.keys():
            raise ConfigError(f"stages.{min(taken)}: a stage cannot be called like a key of the pipeline; rename it")
        return self
