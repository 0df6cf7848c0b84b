"""A prompt: what the policy is asked, as text and as the token ids that every role sees."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """One prompt of the stream. The same data row in the next epoch is another prompt with another id."""

    prompt_id: str
    """`"<row>/<epoch>"`, unique within a job: the key under which the ledger follows this prompt's life."""
    text: str
    """What was tokenised, after the template was applied."""
    token_ids: np.ndarray
    """int32 [P], P >= 1."""
    item: Mapping[str, Any] = field(default_factory=dict)
    """The row's other columns (an answer, a subject); rewards read them."""
