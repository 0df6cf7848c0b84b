"""What a reward sees of one completion, and what comes back: a number, or a `Failure` that is never a number."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, SupportsFloat

import numpy as np

from rlhf_cluster.errors import DataError, RewardError

FLOAT32_MAX = float(np.finfo(np.float32).max)


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardSample:
    """One completion of one prompt, as a reward function gets it."""

    prompt: str
    """The prompt's text, after the chat template."""
    completion: str
    """The completion's text, special tokens left out."""
    finish_reason: str
    """`stop`, `length` or `abort`."""
    num_tokens: int
    """Completion tokens, the end-of-sequence token included."""
    item: Mapping[str, Any] = field(default_factory=dict)
    """The data row's other columns, such as the answer."""
    token_ids: np.ndarray | None = None
    """int32 [P + L], prompt and completion in the policy's tokenizer."""

    def column(self, name: str) -> Any:
        """The row's value under `name`. Raises `DataError` naming the columns that there are."""
        if name not in self.item:
            columns = ", ".join(map(repr, self.item)) or "none"
            raise DataError(f"the prompt's row has no column {name!r} (columns: {columns}); name one of them in `args`")
        return self.item[name]


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why a sample has no reward. The server turns it into a `records.Invalid`, which also says whose it is."""

    kind: str
    """`raised`, `timed_out`, `died`, `not_a_number` or `unavailable`."""
    message: str


Outcome = float | Failure
ScoreSamples = Callable[[Sequence[RewardSample]], Awaitable[list[Outcome]]]
"""One reward, wherever it runs: an outcome for every sample, in order. Raises for nothing the reward does."""


class RewardUnavailable(RewardError):
    """Raised by a reward to say that what it asks (a judge, a sandbox) is away: `unavailable`, not its own fault."""


def outcome_of(value: object) -> Outcome:
    """The reward in `value`, or why it is none. Bools are verdicts: True is 1.0.

    NaN, infinities, what float32 cannot hold, strings (even "1.0") and None are `not_a_number`.
    """
    complaint = f"returned {_shown(repr, value)} ({type(value).__name__}); a reward is one finite number"
    if isinstance(value, str | bytes | bytearray) or not isinstance(value, SupportsFloat):
        return Failure(kind="not_a_number", message=complaint)
    try:
        number = float(value)
    except Exception as error:  # noqa: BLE001
        # A foreign `__float__`: an array of two, a tensor on another device, 10**400.
        return Failure(kind="not_a_number", message=f"{complaint} ({_shown(str, error)})")
    if not math.isfinite(number) or abs(number) > FLOAT32_MAX:
        return Failure(kind="not_a_number", message=complaint)
    return number


def failure_of(error: BaseException) -> Failure:
    """What a reward that raised `error` leaves behind: the error's type and first words."""
    kind = "unavailable" if isinstance(error, RewardUnavailable) else "raised"
    return Failure(kind=kind, message=f"{type(error).__name__}: {_shown(str, error)}")


def _shown(show: Callable[[object], str], value: object) -> str:
    """`show(value)` on one short line; foreign objects may fail even at that."""
    try:
        return shorten(show(value))
    except Exception as error:  # noqa: BLE001  A foreign `__repr__` may raise anything.
        return f"<no text: {type(error).__name__}>"


def shorten(text: str, *, max_chars: int = 300) -> str:
    """Text fit for one line of a journal, whatever a reward put into it."""
    line = " ".join(text.split())
    return line if len(line) <= max_chars else f"{line[: max_chars - 3]}..."
