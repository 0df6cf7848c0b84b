"""Which stage needs which: the references in a job's settings, what they stand for, and the order that they ask for.

A reference is a whole value, `{sft.model}`, or the beginning of a path, `{sft.job}/samples.jsonl`; braces elsewhere, as
in a template, are left alone. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rlhf_cluster.errors import ConfigError, did_you_mean

REFERENCE = re.compile(r"\{([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\}(/.+)?")
OUTPUTS = ("model", "pairs", "revisions", "evaluation", "job")
"""What a stage can leave for others; `outputs.py` says where it lies."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    key: str
    """Where it stands: the dotted key of a setting."""
    stage: str
    output: str
    """One of `OUTPUTS`."""
    rest: str = ""
    """The path below the output, with its leading slash."""

    def __str__(self) -> str:
        return f"{{{self.stage}.{self.output}}}{self.rest}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    name: str
    job: Mapping[str, Any]
    """The whole `JobConfig` as JSON, every default written out, with references where outputs will be."""

    @property
    def references(self) -> tuple[Reference, ...]:
        return tuple(found for key, value in leaves(self.job) if (found := reference_of(value, key=key)))

    @property
    def needs(self) -> tuple[str, ...]:
        """Names of the stages it refers to, each once."""
        return tuple(dict.fromkeys(reference.stage for reference in self.references))

    def resolved(self, place: Callable[[Reference], str]) -> dict[str, Any]:
        """The job with `place(reference)` where each reference stands."""
        places = {reference.key: place(reference) for reference in self.references}
        return _replaced(self.job, places, "")


def reference_of(value: Any, *, key: str) -> Reference | None:
    """The reference that `value` is.

    >>> str(reference_of("{sft.job}/samples.jsonl", key="data.train.path"))
    '{sft.job}/samples.jsonl'
    >>> reference_of("Rate {row.text}!", key="description")
    """
    match = REFERENCE.fullmatch(value) if isinstance(value, str) else None
    return Reference(key=key, stage=match[1], output=match[2], rest=match[3] or "") if match else None


def leaves(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted key and value of everything that is no table and no list; an empty one of these counts as a value.

    >>> dict(leaves({"train": {"num_steps": 2}, "rewards": [{"weight": 1.0}], "observers": []}))
    {'train.num_steps': 2, 'rewards.0.weight': 1.0, 'observers': []}
    """
    items = tree.items() if isinstance(tree, Mapping) else enumerate(tree) if isinstance(tree, list | tuple) else ()
    for key, value in items:
        place = f"{prefix}{key}"
        if isinstance(value, Mapping | list | tuple) and value:
            yield from leaves(value, f"{place}.")
        else:
            yield place, value


def ordered(stages: Sequence[Stage]) -> tuple[Stage, ...]:
    """Every stage after those it needs, otherwise as given. Raises `ConfigError` for a reference to nothing, and for
    stages that need each other."""
    names = [stage.name for stage in stages]
    for stage in stages:
        for reference in stage.references:
            _check(stage, reference, names)
    done: dict[str, Stage] = {}
    while len(done) < len(stages):
        waiting = [stage for stage in stages if stage.name not in done]
        ready = next((stage for stage in waiting if done.keys() >= set(stage.needs)), None)
        if ready is None:
            circle = " -> ".join(_circle(waiting))
            raise ConfigError(f"stages need each other in a circle: {circle}. Break it at one of these references")
        done[ready.name] = ready
    return tuple(done.values())


def _check(stage: Stage, reference: Reference, names: Sequence[str]) -> None:
    where = f"stages.{stage.name}: {reference.key} = '{reference}'"
    if reference.stage not in names:
        hint = did_you_mean(reference.stage, names) or f"; stages are {', '.join(names)}"
        raise ConfigError(f"{where}: there is no stage {reference.stage!r}{hint}")
    if reference.output not in OUTPUTS:
        hint = did_you_mean(reference.output, OUTPUTS) or f"; outputs are {', '.join(OUTPUTS)}"
        raise ConfigError(f"{where}: a stage has no output {reference.output!r}{hint}")


def _circle(waiting: Sequence[Stage]) -> list[str]:
    """Names along a circle, its first one again at the end. Each of `waiting` needs another one of them."""
    needs = {stage.name: [name for name in stage.needs if any(name == w.name for w in waiting)] for stage in waiting}
    path = [waiting[0].name]
    while path[-1] not in path[:-1]:
        path.append(needs[path[-1]][0])
    return path[path.index(path[-1]) :]


def _replaced(tree: Any, places: Mapping[str, str], prefix: str) -> Any:
    if isinstance(tree, Mapping):
        return {key: _replaced(value, places, f"{prefix}.{key}" if prefix else str(key)) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [_replaced(value, places, f"{prefix}.{index}") for index, value in enumerate(tree)]
    return places.get(prefix, tree)
