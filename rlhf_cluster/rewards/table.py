"""The built-in reward functions by name, and how any reward function is found, loaded and given its arguments.

A name stands for `package.module:attribute`, and so does an outside function: nothing here needs editing for one.
The attribute is a plain or async function of a `RewardSample`, or a class whose instances have such a `score`.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from rlhf_cluster.errors import ConfigError, did_you_mean

BUILT_IN: Mapping[str, str] = {
    "exact_match": "rlhf_cluster.rewards.exact_match:exact_match",
    "length": "rlhf_cluster.rewards.length:length",
    "number_match": "rlhf_cluster.rewards.number_match:number_match",
    "overlong": "rlhf_cluster.rewards.length:overlong",
    "reasoning_gym": "rlhf_cluster.rewards.reasoning_gym:reasoning_gym",
    "regex": "rlhf_cluster.rewards.regex:regex",
    "vader": "rlhf_cluster.rewards.vader:vader",
    "word_world": "rlhf_cluster.rewards.word_world:word_world",
}

IMPORT_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


def import_path(function: str) -> str:
    """`package.module:attribute` of a built-in name or of an import path. Imports nothing.

    Raises `ConfigError` for an unknown name.
    """
    if function in BUILT_IN:
        return BUILT_IN[function]
    if ":" in function or "." in function:
        if not IMPORT_PATH.fullmatch(function):
            raise ConfigError(
                f"reward function {function!r} is no import path; write it as 'package.module:attribute', "
                "with one colon between the module and the function"
            )
        return function
    raise ConfigError(
        f"no built-in reward is called {function!r}{did_you_mean(function, BUILT_IN)}; built in are "
        f"{', '.join(BUILT_IN)}; "
        "your own function is named as 'package.module:attribute'"
    )


def load(function: str, args: Mapping[str, Any]) -> Callable[..., Any]:
    """Import the function and bind its arguments: what is left takes one `RewardSample`.

    Raises `ConfigError` when it cannot be imported, is not callable, or does not take these arguments.
    """
    path = import_path(function)
    module_name, _, attribute = path.partition(":")
    try:
        target: Any = importlib.import_module(module_name)
    except ImportError as error:
        raise ConfigError(
            f"reward function {function!r}: cannot import {module_name}: {error}; "
            "install it, or put its directory on PYTHONPATH of the reward server"
        ) from error
    for part in attribute.split("."):
        if not hasattr(target, part):
            hint = did_you_mean(part, dir(target))
            raise ConfigError(f"reward function {function!r}: {module_name} has no {part!r}{hint}")
        target = getattr(target, part)
    return _bind(function, target, args)


def _bind(function: str, target: Any, args: Mapping[str, Any]) -> Callable[..., Any]:
    if not callable(target):
        raise ConfigError(f"reward function {function!r} is a {type(target).__name__}, which cannot be called")
    if not inspect.isclass(target):
        _check_takes(function, target, args, positional=1)
        return partial(target, **args)
    _check_takes(function, target, args, positional=0)
    if not callable(getattr(target, "score", None)):
        raise ConfigError(f"reward class {function!r} has no method `score(sample)`")
    return target(**args).score


def _check_takes(function: str, target: Callable[..., Any], args: Mapping[str, Any], *, positional: int) -> None:
    try:
        signature = inspect.signature(target)
    except ValueError:  # written in C, without a signature: the first call will tell
        return
    try:
        signature.bind(*[None] * positional, **args)
    except TypeError as error:
        allowed = ", ".join(map(str, list(signature.parameters.values())[positional:])) or "none"
        raise ConfigError(f"reward function {function!r}, args: {error}; it takes {allowed}") from error
