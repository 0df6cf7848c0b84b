"""From what was submitted to a checked job. No code of the job is imported here, no path of the client's is opened.

A job file is shown to everybody who may read, so one that holds a secret is refused rather than hidden.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from rlhf_cluster.config import JobConfig
from rlhf_cluster.config.changed import changed
from rlhf_cluster.config.load import apply_override, check, find, parse_text, recipe_names
from rlhf_cluster.errors import ConfigError, DataError, ModelError, did_you_mean
from rlhf_cluster.wire.jobs import Submit

PLAIN_HEADERS = ("accept", "accept-language", "content-type", "user-agent")
"""What a reward's `headers` may say in the job file; the value of any other may be a secret."""

SECRET_ARG = re.compile("(api_?key|secret|passw(or)?d)$", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    job: JobConfig
    source: str
    """The job file's text."""
    config: dict[str, Any]
    """As JSON, with all defaults filled in."""
    changed: dict[str, Any]


def resolve(body: Submit) -> Resolved:
    """As `rlhf run` does. Raises `ConfigError` with every problem, one a line."""
    text, is_toml, source = _text(body)
    tree = parse_text(text, is_toml=is_toml, source=source)
    _refuse_secrets(tree)
    for override in body.overrides:
        apply_override(tree, override)
    _refuse_secrets(tree)  # before the check, whose complaints show what is wrong
    job = check(tree, source=source, runs_outside_code=False)
    config = json.loads(job.model_dump_json())
    _refuse_secrets(config)
    return Resolved(job=job, source=text, config=config, changed=changed(config))


def _text(body: Submit) -> tuple[str, bool, str]:
    if body.recipe is None:
        return body.source or "", body.format == "toml", "job file"
    names = recipe_names()
    if body.recipe not in names:  # never the path of a file of this machine
        hint = did_you_mean(body.recipe, names) or f"; recipes are {', '.join(names)}"
        raise ConfigError(f"recipe {body.recipe!r} does not exist{hint}; send your own job file as source")
    return find(body.recipe).read_text(encoding="utf-8"), True, body.recipe


def plan_lines(job: JobConfig) -> list[str]:
    """What it would reserve, in words. Only models known by name are measured here: no path of the client's is."""
    from rlhf_cluster.models.registry import NAME
    from rlhf_cluster.runtime import placement

    paths = [job.model, *(reward.path for reward in job.rewards if reward.type == "model")]
    if strange := [path for path in paths if not NAME.fullmatch(path)]:
        return [f"what it would reserve is known only on the cluster, where {strange[0]} is"]
    elsewhere = job.model_copy(update={"runtime": "ray", "ray": job.ray.model_copy(update={"address": "auto"})})
    try:
        return placement.plan(elsewhere).lines()
    except (ModelError, DataError) as error:
        return [f"what it would reserve is known only where its model is: {error}"]


def _refuse_secrets(tree: Mapping[str, Any]) -> None:
    problems = list(_secrets(tree))
    if problems:
        raise ConfigError("\n".join(problems))


def _secrets(tree: Mapping[str, Any]) -> Iterator[str]:
    rewards = tree.get("rewards")
    for index, reward in enumerate(rewards if isinstance(rewards, list) else ()):
        if not isinstance(reward, Mapping):
            continue
        for name in _table(reward, "args"):
            if SECRET_ARG.search(str(name)):
                yield (
                    f"rewards.{index}.args.{name}: have the function read it from the environment of the reward "
                    "servers: a job file is shown to everybody who may read"
                )
        for name, value in _table(reward, "headers").items():
            if str(name).lower() not in PLAIN_HEADERS and not str(value).startswith("env:"):
                yield (
                    f'rewards.{index}.headers.{name}: write "env:NAME" and give the value to the reward servers as the '
                    "environment variable NAME: a job file is shown to everybody who may read"
                )
        if _has_password(str(reward.get("url", ""))):
            yield f"rewards.{index}.url: leave out the password, and send it as a header of the form env:NAME"


def _table(reward: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    table = reward.get(key)
    return table if isinstance(table, Mapping) else {}


def _has_password(url: str) -> bool:
    try:
        return urlsplit(url).password is not None
    except ValueError:  # no URL; the check of the job says so
        return False
