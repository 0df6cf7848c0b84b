"""The base of everything that a job file configures: frozen, no unknown keys, importable without torch.

A thing with settings keeps them beside itself (an engine's in the engine's file); `config/` composes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

OF_THEIR_OWN = {"CPU": "cpus", "GPU": "gpus"}
"""Resources of Ray that have a setting beside `resources`."""
NOT_RESERVED = ("memory", "object_store_memory")


class Settings(BaseModel):
    """Frozen and picklable. Derived values are properties; nothing rewrites a setting after it was checked."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True, validate_default=True
    )


Precision = Literal["auto", "bf16", "fp32"]
Dtype = Literal["bfloat16", "float32"]


def dtype_of(precision: Precision, *, gpus: float) -> Dtype:
    """`auto` is bf16 where that is what the hardware is made for: on GPUs, and on this CPU if it has instructions for
    it. One without them takes nine times as long as with float32."""
    is_bf16 = precision == "bf16" or (precision == "auto" and (gpus > 0 or _this_cpu_multiplies_bfloat16()))
    return "bfloat16" if is_bf16 else "float32"


def multiplies_bfloat16(cpuinfo: str) -> bool:
    """By the flags of `/proc/cpuinfo`: AVX-512 and AMX of x86, and what Arm has."""
    return not {"avx512_bf16", "amx_bf16", "bf16"}.isdisjoint(cpuinfo.split())


@cache
def _this_cpu_multiplies_bfloat16() -> bool:
    try:
        return multiplies_bfloat16(Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    except OSError:
        return False


def _custom(resources: Mapping[str, float]) -> Mapping[str, float]:
    for name in resources:
        if name in OF_THEIR_OWN:
            raise ValueError(f"{name!r} has a setting of its own: use {OF_THEIR_OWN[name]}")
        if name in NOT_RESERVED:
            raise ValueError(f"{name!r} is not reserved: name a resource that you gave to nodes of your cluster")
    return resources


Resources = Annotated[dict[str, Annotated[float, Field(gt=0)]], AfterValidator(_custom)]
"""Resources that nodes of a Ray cluster were given by name, as in `ray start --resources='{"rollout": 1}'`."""
