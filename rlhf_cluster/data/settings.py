"""Where prompts come from and how they are worded, as a job file says it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt, field_validator, model_validator

from rlhf_cluster.data.instructions import Instructions
from rlhf_cluster.errors import ConfigError, did_you_mean
from rlhf_cluster.settings import Settings

TooLong = Literal["refuse", "skip", "cut"]

BUILT_IN = ("positive_reviews", "word_world")


class RowSource(Settings):
    """What all sources have in common."""

    num_rows: PositiveInt | None = None
    """Take only the first rows of the source; all of them when not given."""


class FileSource(RowSource):
    path: Path
    """Relative to the directory the job is started in."""
    prompt_column: str = "prompt"
    """Holds a text, or chat messages (a list of `role` and `content`). The other columns reach the rewards."""


class JsonlSource(FileSource):
    """One JSON object a line."""

    type: Literal["jsonl"] = "jsonl"


class ParquetSource(FileSource):
    """A Parquet file."""

    type: Literal["parquet"] = "parquet"


class DatasetSource(FileSource):
    """A directory written by `datasets.save_to_disk`."""

    type: Literal["dataset"] = "dataset"
    split: str | None = None
    """Needed when the directory holds several splits."""


class ProceduralSource(RowSource):
    """Prompts written by a function."""

    type: Literal["procedural"] = "procedural"
    name: str
    """`positive_reviews`, `word_world`, `reasoning_gym:<dataset>`, or an import path `package.module:function`."""
    split: Literal["train", "eval"] = "train"
    """The two share no prompt in the built-in sources; functions get it as an argument."""
    seed: int = 0
    """Changes the order or the draw of the prompts, not the split."""
    prompt_column: str = "prompt"
    """Column that holds the prompt, where the function yields rows; one that yields texts needs none."""
    arguments: dict[str, Any] = Field(default_factory=dict)
    """Further keyword arguments of the function."""

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        module, colon, function = name.partition(":")
        if name in BUILT_IN or (colon and module and function):
            return name
        raise ConfigError(
            f"procedural source {name!r} is unknown{did_you_mean(name, BUILT_IN)}; use one of {', '.join(BUILT_IN)}, "
            "reasoning_gym:<dataset>, or an import path package.module:function"
        )


PlainSource = Annotated[JsonlSource | ParquetSource | DatasetSource | ProceduralSource, Field(discriminator="type")]


class MixturePart(Settings):
    """One data set of a mixture."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    """Names it in reports and in the ids of its prompts."""
    source: PlainSource
    """Where its rows are."""
    weight: float | None = Field(None, gt=0)
    """Its share, relative to the other parts' weights. Without weights the share follows from the number of rows."""
    instructions: Instructions | None = None
    """How its rows are worded; as they are when not given."""


class MixtureSource(Settings):
    """Several data sets, each walked through in epochs of its own, drawn from at fixed rates."""

    type: Literal["mixture"] = "mixture"
    parts: tuple[MixturePart, ...] = Field(min_length=1)
    """The data sets; a mixture is no part of another."""
    max_rows: PositiveInt | None = None
    """Where the share follows from the number of rows: count no part with more than these, so that a large one does not
    drown the others."""
    temperature: float = Field(1.0, gt=0)
    """Where the share follows from the number of rows: 1 is in proportion, larger makes the parts more equal."""

    @model_validator(mode="after")
    def _consistent(self) -> MixtureSource:
        names = [part.name for part in self.parts]
        if len(set(names)) < len(names):
            raise ConfigError(f"the mixture's parts are called {', '.join(names)}: give every part a name of its own")
        weighted = [part.name for part in self.parts if part.weight is not None]
        if weighted and len(weighted) < len(names):
            raise ConfigError(f"of the mixture's parts only {', '.join(weighted)} have a weight: give all one, or none")
        if weighted and (self.max_rows is not None or self.temperature != 1.0):
            raise ConfigError("max_rows and temperature are for parts without weights: remove them, or the weights")
        return self


Source = Annotated[
    JsonlSource | ParquetSource | DatasetSource | ProceduralSource | MixtureSource, Field(discriminator="type")
]


class DataSettings(Settings):
    """Prompts to train on and to evaluate with, and how they are worded."""

    train: Source
    """Prompts to train on; for algorithms that learn from data, with their recorded completions."""
    eval: Source | None = None
    """Held-out prompts; no evaluation when not given."""
    template: Literal["raw", "chat"] = "raw"
    """`raw` tokenises the text as it is; `chat` puts it into the tokenizer's chat template as the user's message."""
    system: str | None = None
    """A system message in front of every chat; only with `template = "chat"`."""
    max_prompt_tokens: PositiveInt | None = None
    """Refuse longer prompts. The model's context minus one token is always a bound."""
    max_tokens: PositiveInt | None = None
    """Longest recorded example, prompt and completion together. The model's context is always a bound."""
    too_long: TooLong = "refuse"
    """What becomes of a longer one: `refuse` names the row and the job does not start, `skip` leaves the row out, `cut`
    trains on the completion's beginning, without its end token."""
    shuffle: bool = True
    """A new order every epoch, from the job's seed; otherwise the order of the source."""

    @field_validator("system")
    @classmethod
    def _system_needs_chat(cls, system: str | None, info: Any) -> str | None:
        if system is not None and info.data.get("template") == "raw":
            raise ConfigError('system is set but template is "raw": set template = "chat" or remove system')
        return system
