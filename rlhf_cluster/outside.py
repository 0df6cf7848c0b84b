"""What a job names by import path, `package.module:attribute`: code of the user's own packages, loaded."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from rlhf_cluster.errors import ConfigError, did_you_mean

IMPORT_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


def check_import_path(path: str, *, what: str) -> str:
    """`path` as it is; nothing is imported. Raises `ConfigError` where it is none; `what` says there what it names."""
    if IMPORT_PATH.fullmatch(path):
        return path
    raise ConfigError(
        f"{what} {path!r} is no import path; write it as 'package.module:attribute', "
        "with one colon between the module and what is in it"
    )


def load_outside(path: str, *, what: str) -> Any:
    """What `path` names. Raises `ConfigError` where it is not there; what the module itself raises is let through."""
    module_name, _, attributes = check_import_path(path, what=what).partition(":")
    try:
        found: Any = import_module(module_name)
    except ImportError as error:
        raise ConfigError(
            f"{what} {path!r}: cannot import {module_name}: {error}; install it where the job runs, "
            "put its directory on PYTHONPATH there, or submit the job with --code"
        ) from error
    for name in attributes.split("."):
        if not hasattr(found, name):
            raise ConfigError(f"{what} {path!r}: {module_name} has no {name!r}{did_you_mean(name, dir(found))}")
        found = getattr(found, name)
    return found


def check_takes(target: Any, arguments: Mapping[str, Any], *, what: str, num_positional: int = 0) -> None:
    """Raise `ConfigError` unless `target` can be called with these keyword arguments behind `num_positional` others."""
    if not callable(target):
        raise ConfigError(f"{what} is a {type(target).__name__}, which cannot be called")
    try:
        signature = inspect.signature(target)
    except ValueError:  # written in C, without a signature: the first call will tell
        return
    try:
        signature.bind(*[None] * num_positional, **arguments)
    except TypeError as error:
        allowed = ", ".join(map(str, list(signature.parameters.values())[num_positional:])) or "none"
        raise ConfigError(f"{what}: {error}; it takes {allowed}") from error
