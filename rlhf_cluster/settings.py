"""The base of everything that a job file configures: frozen, no unknown keys, importable without torch.

A thing with settings keeps them beside itself (an engine's in the engine's file); `config/` composes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

OF_THEIR_OWN = {"CPU": "cpus", "GPU": "gpus"}
"""Resources of Ray that have a setting beside `resources`."""
NOT_RESERVED = ("memory", "object_store_memory")


class Settings(BaseModel):
    """Frozen and picklable. Derived values are properties; nothing rewrites a setting after it was checked."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True, validate_default=True
    )


def _custom(resources: Mapping[str, float]) -> Mapping[str, float]:
    for name in resources:
        if name in OF_THEIR_OWN:
            raise ValueError(f"{name!r} has a setting of its own: use {OF_THEIR_OWN[name]}")
        if name in NOT_RESERVED:
            raise ValueError(f"{name!r} is not reserved: name a resource that you gave to nodes of your cluster")
    return resources


Resources = Annotated[dict[str, Annotated[float, Field(gt=0)]], AfterValidator(_custom)]
"""Resources that nodes of a Ray cluster were given by name, as in `ray start --resources='{"rollout": 1}'`."""
