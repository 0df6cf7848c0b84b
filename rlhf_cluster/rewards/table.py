"""The built-in reward functions by name, and how any reward function is found, loaded and given its arguments.

A name stands for `package.module:attribute`, and so does an outside function: nothing here needs editing for one.
The attribute is a plain or async function of a `RewardSample`, or a class whose instances have such a `score`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from rlhf_cluster.errors import ConfigError, did_you_mean
from rlhf_cluster.outside import check_import_path, check_takes, load_outside

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


def import_path(function: str) -> str:
    """`package.module:attribute` of a built-in name or of an import path. Imports nothing.

    Raises `ConfigError` for an unknown name.
    """
    if function in BUILT_IN:
        return BUILT_IN[function]
    if ":" in function or "." in function:
        return check_import_path(function, what="reward function")
    raise ConfigError(
        f"no built-in reward is called {function!r}{did_you_mean(function, BUILT_IN)}; built in are "
        f"{', '.join(BUILT_IN)}; "
        "your own function is named as 'package.module:attribute'"
    )


def load(function: str, args: Mapping[str, Any]) -> Callable[..., Any]:
    """Import the function and bind its arguments: what is left takes one `RewardSample`.

    Raises `ConfigError` when it cannot be imported, is not callable, or does not take these arguments.
    """
    return _bind(function, load_outside(import_path(function), what="reward function"), args)


def _bind(function: str, target: Any, args: Mapping[str, Any]) -> Callable[..., Any]:
    what = f"reward function {function!r}"
    if not inspect.isclass(target):
        check_takes(target, args, what=what, num_positional=1)
        return partial(target, **args)
    check_takes(target, args, what=what)
    if not callable(getattr(target, "score", None)):
        raise ConfigError(f"reward class {function!r} has no method `score(sample)`")
    return target(**args).score
