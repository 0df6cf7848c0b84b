"""The base of everything that a job file configures: frozen, no unknown keys, importable without torch.

A thing with settings keeps them beside itself (an engine's in the engine's file); `config/` composes them.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """Frozen and picklable. Derived values are properties; nothing rewrites a setting after it was checked."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True, validate_default=True
    )
