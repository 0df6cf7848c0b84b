"""The algorithms by name, and how a job file names one: a built-in `type`, or an import path `package.module:Class`.

`AlgorithmSettings` is the type for a field of a job: it accepts a table, checks it through the named class, and dumps
to a table that gives an equal algorithm again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer, ValidationInfo, WithJsonSchema

from rlhf_cluster.algorithms.base import Algorithm
from rlhf_cluster.algorithms.cispo import CISPO
from rlhf_cluster.algorithms.dapo import DAPO
from rlhf_cluster.algorithms.dpo import DPO
from rlhf_cluster.algorithms.dr_grpo import DrGRPO
from rlhf_cluster.algorithms.grpo import GRPO
from rlhf_cluster.algorithms.gspo import GSPO
from rlhf_cluster.algorithms.kto import KTO
from rlhf_cluster.algorithms.orpo import ORPO
from rlhf_cluster.algorithms.ppo import PPO
from rlhf_cluster.algorithms.reinforce_pp import ReinforcePP
from rlhf_cluster.algorithms.reward_model import RewardModel
from rlhf_cluster.algorithms.rloo import RLOO
from rlhf_cluster.algorithms.sft import SFT
from rlhf_cluster.algorithms.simpo import SimPO
from rlhf_cluster.algorithms.unseen import UnseenAlgorithm
from rlhf_cluster.errors import ConfigError, did_you_mean
from rlhf_cluster.outside import load_outside

ALGORITHMS: dict[str, type[Algorithm]] = {
    "grpo": GRPO,
    "dr_grpo": DrGRPO,
    "dapo": DAPO,
    "gspo": GSPO,
    "cispo": CISPO,
    "rloo": RLOO,
    "reinforce_pp": ReinforcePP,
    "ppo": PPO,
    "sft": SFT,
    "reward_model": RewardModel,
    "dpo": DPO,
    "kto": KTO,
    "orpo": ORPO,
    "simpo": SimPO,
}


def resolve(value: Mapping[str, Any] | Algorithm) -> Algorithm:
    """The algorithm that a table such as `{"type": "grpo", "clip_high": 0.28}` describes; an algorithm as it is.

    Raises `ConfigError` for a `type` that names nothing, and pydantic's `ValidationError` for wrong hyper-parameters.
    """
    if isinstance(value, Algorithm):
        return value
    if not isinstance(value, Mapping):
        raise ConfigError(f'algorithm {value!r}: write a table with a type, such as {{type = "grpo"}}')
    fields = dict(value)
    return algorithm_class(fields.pop("type", None)).model_validate(fields)


def algorithm_class(name: object) -> type[Algorithm]:
    """The class behind a `type`. Raises `ConfigError` saying which names exist and how to name one of one's own."""
    if name in ALGORITHMS:
        return ALGORITHMS[str(name)]
    if isinstance(name, str) and ":" in name:
        return _imported(name)
    choices = f"choose {', '.join(ALGORITHMS)}, or an import path such as my_package.my_module:MyAlgorithm"
    if name is None:
        raise ConfigError(f"algorithm has no type: {choices}")
    raise ConfigError(f"algorithm type {name!r} is unknown{did_you_mean(str(name).lower(), ALGORITHMS)}: {choices}")


def type_name(algorithm: Algorithm) -> str:
    """The `type` under which `resolve` finds the class of `algorithm` again."""
    if isinstance(algorithm, UnseenAlgorithm):
        return algorithm.type
    kind = type(algorithm)
    named = (name for name, known in ALGORITHMS.items() if known is kind)
    return next(named, f"{kind.__module__}:{kind.__qualname__}")


def _imported(path: str) -> type[Algorithm]:
    kind = load_outside(path, what="algorithm type")
    if not (isinstance(kind, type) and issubclass(kind, Algorithm)):
        raise ConfigError(f"algorithm type {path!r} is no subclass of rlhf_cluster.algorithms.Algorithm")
    return kind


def _checked(value: Any, info: ValidationInfo) -> Algorithm:
    """`resolve`, or a stand-in where the context forbids to import outside code."""
    if isinstance(value, Mapping) and (info.context or {}).get("runs_outside_code", True) is False:
        name = value.get("type")
        if isinstance(name, str) and ":" in name:
            return UnseenAlgorithm.model_validate(value)
    return resolve(value)


def _dump(algorithm: Algorithm) -> dict[str, Any]:
    return {"type": type_name(algorithm), **algorithm.model_dump(mode="json", exclude={"type"})}


_OUTSIDE_SCHEMA = {
    "type": "object",
    "title": "An algorithm by import path",
    "properties": {"type": {"type": "string", "pattern": "^[^:]+:[^:]+$"}},
    "required": ["type"],
}

AlgorithmSettings = Annotated[
    Algorithm,
    BeforeValidator(_checked),
    PlainSerializer(_dump),
    WithJsonSchema({"anyOf": [*(kind.model_json_schema() for kind in ALGORITHMS.values()), _OUTSIDE_SCHEMA]}),
]
