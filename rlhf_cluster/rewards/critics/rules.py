"""Critics that follow rules: the built-in ones by name, and one of the user's own by import path."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlhf_cluster.errors import ConfigError, did_you_mean
from rlhf_cluster.outside import check_import_path, check_takes, load_outside
from rlhf_cluster.rewards.critics.base import Critic

RULES: Mapping[str, str] = {"word_world": "rlhf_cluster.rewards.critics.word_world:WordWorldCritic"}
METHODS = ("check", "critique", "revise", "close")


def rule_path(name: str) -> str:
    """`package.module:Class` of a built-in name or of an import path. Imports nothing. Raises `ConfigError`."""
    if name in RULES:
        return RULES[name]
    if ":" in name:
        return check_import_path(name, what="critic")
    raise ConfigError(
        f"no rule critic is called {name!r}{did_you_mean(name, RULES)}; built in: {', '.join(RULES)}; "
        "a class of your own is named as 'package.module:Class'"
    )


def make_rule(name: str, args: Mapping[str, Any]) -> Critic:
    """Raises `ConfigError` where it cannot be imported, does not take `args`, or is no `Critic`."""
    kind = load_outside(rule_path(name), what="critic")
    check_takes(kind, args, what=f"critic {name!r}")
    critic = kind(**args)
    missing = [method for method in METHODS if not callable(getattr(critic, method, None))]
    if missing:
        raise ConfigError(
            f"critic {name!r} has no method {' and no '.join(missing)}; rlhf_cluster.rewards.critics.base.Critic says "
            f"what {', '.join(METHODS)} are for"
        )
    return critic
