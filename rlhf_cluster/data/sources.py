"""Sources of prompts, read: every kind ends as a list of `Row`s whose prompts are there and are not empty."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from rlhf_cluster.data.chats import Messages, messages_of, prompt_in_chats
from rlhf_cluster.data.settings import (
    DatasetSource,
    FileSource,
    JsonlSource,
    ParquetSource,
    PlainSource,
    ProceduralSource,
)
from rlhf_cluster.errors import DataError, did_you_mean
from rlhf_cluster.outside import check_takes, load_outside


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row of a source."""

    number: int
    """Its place in the source, from 0."""
    prompt: str | Messages
    """A text, or chat messages with `role` and `content`. What whole chats begin with, where a row has only those."""
    item: Mapping[str, Any] = field(default_factory=dict)
    """The other columns; whole chats stay among them."""
    part: str = ""
    """The data set of a mixture that it is of."""

    @property
    def key(self) -> str:
        """Tells it from all other rows of the job, `"3"` or `"part:3"`."""
        return f"{self.part}:{self.number}" if self.part else str(self.number)

    @property
    def where(self) -> str:
        """Names it in a message."""
        return f"{self.part} row {self.number}" if self.part else f"row {self.number}"


def read_rows(source: PlainSource, *, part: str = "") -> list[Row]:
    """All rows of a source, at most `num_rows`. Raises `DataError` naming the source and the row at fault."""
    name, columns = columns_in(source)
    limited = islice(columns, source.num_rows)
    rows = [
        _row(each, number=number, prompt_column=source.prompt_column, name=name, part=part)
        for number, each in enumerate(limited)
    ]
    if not rows:
        raise DataError(f"{name} has no rows; a source needs at least one prompt")
    return rows


def columns_in(source: PlainSource) -> tuple[str, Iterable[Mapping[str, Any]]]:
    """What messages call the source, and its rows with whatever columns they have."""
    match source:
        case JsonlSource():
            return str(source.path), _jsonl(_existing(source))
        case ParquetSource():
            return str(source.path), _parquet(_existing(source))
        case DatasetSource():
            return str(source.path), _dataset(_existing(source), split=source.split)
        case ProceduralSource():
            return source.name, procedural(source)


def procedural(source: ProceduralSource) -> Iterable[Mapping[str, Any]]:
    """Call the function behind `source.name` with `split`, `num_rows`, `seed` and the further arguments. Raises
    `ConfigError` for a name or arguments that are wrong."""
    module, _, attribute = source.name.partition(":")
    if module == "reasoning_gym":
        return _reasoning_gym(attribute, source)
    path = source.name if attribute else f"rlhf_cluster.data.{source.name}:rows"
    function = load_outside(path, what="procedural source")
    arguments = {"split": source.split, "num_rows": source.num_rows, "seed": source.seed, **source.arguments}
    check_takes(function, arguments, what=f"procedural source {source.name!r}")
    made = function(**arguments)
    return ({source.prompt_column: each} if isinstance(each, str) else each for each in made)


def _reasoning_gym(dataset: str, source: ProceduralSource) -> Iterator[Mapping[str, Any]]:
    """Rows with `dataset` and `entry`, which the reward `reasoning_gym` reads. The two splits use different seeds."""
    try:
        import reasoning_gym
    except ImportError as error:
        raise DataError(
            f"reasoning_gym:{dataset} needs the package reasoning-gym: pip install 'rlhf-cluster[envs]'"
        ) from error
    seed = 2 * source.seed + (source.split == "eval")
    try:
        made = reasoning_gym.create_dataset(dataset, size=source.num_rows or 1000, seed=seed, **source.arguments)
    except ValueError as error:
        raise DataError(f"reasoning_gym:{dataset}: {error}") from error
    for entry in made:
        yield {source.prompt_column: entry["question"], "dataset": dataset, "entry": entry, "answer": entry["answer"]}


def _jsonl(path: Path) -> Iterator[Mapping[str, Any]]:
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise DataError(f"{path} line {number} is not JSON: {error}") from error
            if not isinstance(row, dict):
                raise DataError(f"{path} line {number} is {type(row).__name__}; every line must be a JSON object")
            yield row


def _parquet(path: Path) -> Iterator[Mapping[str, Any]]:
    import pyarrow
    import pyarrow.parquet

    try:
        batches = pyarrow.parquet.ParquetFile(path).iter_batches()
    except pyarrow.ArrowInvalid as error:
        raise DataError(f"{path} is no Parquet file: {error}") from error
    for batch in batches:
        yield from batch.to_pylist()


def _dataset(path: Path, *, split: str | None) -> Iterable[Mapping[str, Any]]:
    import datasets

    try:
        loaded = datasets.load_from_disk(str(path))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DataError(f"{path} was not written by datasets.save_to_disk: {error}") from error
    if not isinstance(loaded, datasets.DatasetDict):
        if split is not None:
            raise DataError(f"{path} holds one dataset without splits; remove split = {split!r}")
        return loaded
    splits = sorted(map(str, loaded))
    if split not in splits:
        wrong = "needs a split" if split is None else f"has no split {split!r}{did_you_mean(split, splits)}"
        raise DataError(f"{path} {wrong}; it holds {', '.join(splits)}")
    return loaded[split]


def _existing(source: FileSource) -> Path:
    if source.path.exists():
        return source.path
    raise DataError(f"{source.path} does not exist (from {Path.cwd()}); correct the source's `path`")


def _row(columns: Mapping[str, Any], *, number: int, prompt_column: str, name: str, part: str) -> Row:
    where = f"{name} row {number}"
    if columns.get(prompt_column) is None and (opening := prompt_in_chats(columns, where=where)):
        return Row(number=number, prompt=opening, item=columns, part=part)
    if prompt_column not in columns:
        raise DataError(
            f"{where} has no column {prompt_column!r}{did_you_mean(prompt_column, columns)}; it has "
            f"{', '.join(columns)}: set prompt_column to one of them"
        )
    prompt = columns[prompt_column]
    item = {key: value for key, value in columns.items() if key != prompt_column}
    if isinstance(prompt, str):
        if not prompt.strip():
            raise DataError(f"{where}: the prompt is empty")
        return Row(number=number, prompt=prompt, item=item, part=part)
    return Row(number=number, prompt=messages_of(prompt, where=where), item=item, part=part)
