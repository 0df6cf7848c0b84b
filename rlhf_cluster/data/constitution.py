"""A constitution: the principles that answers are criticised, revised and compared by, as a versioned data file.

Consumes a TOML file, produces a frozen `Constitution`. Its digest changes with anything a model or rule could be told,
and with nothing else, so that whatever was made with it can say exactly by which words.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from importlib import resources
from pathlib import Path

import numpy as np
from pydantic import Field, ValidationError

from rlhf_cluster.errors import DataError, did_you_mean
from rlhf_cluster.settings import Settings

BUILT_IN = ("general", "word-world")
IDENTIFIER = r"^[a-z0-9][a-z0-9_-]{0,62}$"


class Principle(Settings):
    """One thing that answers must keep to. (Critique and revision requests: Bai et al. 2022, arXiv:2212.08073.)"""

    id: str = Field(pattern=IDENTIFIER)
    """Unique in its constitution; rule critics know principles by it."""
    version: int = Field(ge=1)
    """To be raised whenever the words change."""
    critique: str = Field(min_length=1)
    """Asks for what is wrong with an answer."""
    revision: str = Field(min_length=1)
    """Asks for a better answer."""
    comparison: str = Field(min_length=1)
    """Completes "Choose ...": how a judge tells the better one of two answers."""
    weight: float = Field(1.0, gt=0)
    """How often it is drawn, relative to the others."""


class Constitution(Settings):
    """Principles in the order of the file."""

    name: str = Field(pattern=IDENTIFIER)
    """What it is called in provenance."""
    version: int = Field(ge=1)
    """To be raised with any change."""
    description: str = ""
    """One line for people; not part of the digest."""
    principles: tuple[Principle, ...] = Field(min_length=1)
    """At least one."""

    @property
    def digest(self) -> str:
        """16 hexadecimal digits of the content; comments, layout and `description` of the file do not count."""
        content = self.model_dump(mode="json", exclude={"description"})
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def identity(self) -> dict[str, str | int]:
        """For provenance."""
        return {"name": self.name, "version": self.version, "digest": self.digest}

    def draw(self, num: int, generator: np.random.Generator) -> list[Principle]:
        """`num` principles by weight. None comes a second time before every other one has come: with as many rounds as
        principles, an answer is held against all of them."""
        weights = np.array([principle.weight for principle in self.principles])
        drawn: list[int] = []
        while len(drawn) < num:
            drawn += generator.choice(
                len(weights), size=len(weights), replace=False, p=weights / weights.sum()
            ).tolist()
        return [self.principles[index] for index in drawn[:num]]


def load_constitution(name_or_path: str) -> Constitution:
    """A built-in constitution by name, or the one in a TOML file. Raises `DataError` naming file, place and problem."""
    if name_or_path in BUILT_IN:
        text = (resources.files("rlhf_cluster.data") / "constitutions" / f"{name_or_path}.toml").read_text("utf-8")
        return parse_constitution(text, source=name_or_path)
    path = Path(name_or_path)
    if not path.is_file():
        hint = did_you_mean(name_or_path, BUILT_IN)
        raise DataError(
            f"constitution {name_or_path!r} is no file{hint}; name one of {', '.join(BUILT_IN)}, or the path of a TOML "
            f"file (from {Path.cwd()})"
        )
    try:
        text = path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"constitution {path} is no UTF-8 text: {error}") from error
    return parse_constitution(text, source=str(path))


def parse_constitution(text: str, *, source: str) -> Constitution:
    """`source` is what messages call the text."""
    try:
        constitution = Constitution.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise DataError(f"constitution {source} is no TOML: {error}") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise DataError(f"constitution {source}: {place}: {first['msg']} (it is {first['input']!r:.80})") from error
    ids = [principle.id for principle in constitution.principles]
    if twice := sorted({each for each in ids if ids.count(each) > 1}):
        raise DataError(f"constitution {source}: two principles are called {twice[0]!r}; give each its own id")
    return constitution
