"""All that a stage is made from, as a value: its settings, what its inputs hold, and the code. Equal ingredients make
the same thing, so what was made from them need not be made again. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict

from rlhf_cluster.pipeline.content import digest_of
from rlhf_cluster.pipeline.graph import leaves

WITHOUT_EFFECT = ("output_dir", "description")
"""Settings that change nothing of what a job makes."""


class Ingredients(BaseModel):
    model_config = ConfigDict(frozen=True)

    job: dict[str, Any]
    """The whole `JobConfig` as JSON, with references in place of paths: where things lie does not count."""
    inputs: dict[str, str | None]
    """Dotted key of the setting that names it -> digest of its content; None while that is not made yet."""
    code: dict[str, str]
    """Package -> digest of its sources."""

    @property
    def digest(self) -> str:
        return digest_of([self.settings, self.inputs, self.code])

    @property
    def settings(self) -> dict[str, Any]:
        """Dotted key -> value, of all that have an effect."""
        return dict(leaves({key: value for key, value in self.job.items() if key not in WITHOUT_EFFECT}))


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    text: str
    """`changed: train.num_steps (20 -> 40)`"""
    is_sure: bool = True
    """False for an input that is not made yet, and may come out as before."""


def differences(now: Ingredients, then: Ingredients, *, ignore_code: bool = False) -> tuple[Difference, ...]:
    """In what two ingredients differ; nothing exactly if their digests are equal (code aside, where it is ignored)."""
    found = [*_of_settings(now.settings, then.settings), *_of_inputs(now, then)]
    return tuple(found if ignore_code else [*found, *_of_code(now.code, then.code)])


def _of_settings(now: Mapping[str, Any], then: Mapping[str, Any]) -> Iterator[Difference]:
    for key in dict.fromkeys([*now, *then]):
        # As JSON has it, and so the digest: 1, 1.0 and true are three values.
        if key not in now or key not in then or json.dumps(now[key]) != json.dumps(then[key]):
            yield Difference(text=f"changed: {key} ({_shown(then, key)} -> {_shown(now, key)})")


def _shown(settings: Mapping[str, Any], key: str) -> str:
    if key not in settings:
        return "absent"
    text = "none" if settings[key] is None else str(settings[key])
    return text if len(text) <= 40 else f"{text[:37]}..."


def _of_inputs(now: Ingredients, then: Ingredients) -> Iterator[Difference]:
    settings = now.settings
    for key in dict.fromkeys([*now.inputs, *then.inputs]):
        if key in now.inputs and now.inputs[key] is None:
            yield Difference(text=f"{key}: {settings.get(key)} is made anew", is_sure=False)
        elif now.inputs.get(key) != then.inputs.get(key):
            yield Difference(text=f"changed: what {key} names ({settings.get(key, 'nothing now')})")


def _of_code(now: Mapping[str, str], then: Mapping[str, str]) -> Iterator[Difference]:
    for name in sorted(now.keys() | then.keys()):
        if now.get(name) != then.get(name):
            yield Difference(text=f"changed: the code of {name}")
