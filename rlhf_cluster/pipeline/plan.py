"""What becomes of a stage: kept as it was made, gone on with, or run anew, and why. Facts in, decision out; pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from rlhf_cluster.pipeline.ingredients import Difference, Ingredients, differences
from rlhf_cluster.pipeline.state import Making


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    stage: str
    act: Literal["keep", "resume", "run", "perhaps"]
    """`perhaps` is a run that is spared if the inputs made anew come out as before."""
    reasons: tuple[str, ...]
    making: Making | None = None
    """What is kept, or gone on with."""


def decide(
    stage: str,
    ingredients: Ingredients,
    makings: Sequence[Making],
    *,
    lost: Mapping[int, str] | None = None,
    ignore_code: bool = False,
) -> Decision:
    """`makings` are those of the stage, oldest first; `lost` says of some, by number, which output is no longer as it
    was made. `ignore_code` keeps what other code has made."""
    lost = lost or {}
    compared = [(making, differences(ingredients, making.ingredients, ignore_code=ignore_code)) for making in makings]
    same = [making for making, different in compared if not different]
    whole = [making for making in same if making.status == "succeeded" and making.number not in lost]
    begun = [making for making in same if making.status != "succeeded"]
    if whole:
        return Decision(stage=stage, act="keep", reasons=("unchanged",), making=whole[-1])
    if begun:
        why = f"failed: {begun[-1].message}" if begun[-1].status == "failed" else "was interrupted"
        return Decision(stage=stage, act="resume", reasons=(why,), making=begun[-1])
    if same:
        return Decision(stage=stage, act="run", reasons=(lost[same[-1].number],))
    if not compared:
        return Decision(stage=stage, act="run", reasons=("never run",))
    return _changed(stage, compared, lost)


def _changed(
    stage: str, compared: Sequence[tuple[Making, tuple[Difference, ...]]], lost: Mapping[int, str]
) -> Decision:
    """Told by the making that is nearest, the newest of equals."""
    _, nearest = min(reversed(compared), key=lambda pair: sum(difference.is_sure for difference in pair[1]))
    spared = [
        making
        for making, different in compared
        if making.status == "succeeded" and making.number not in lost and not any(each.is_sure for each in different)
    ]
    reasons = tuple(difference.text for difference in nearest)
    return Decision(stage=stage, act="perhaps" if spared else "run", reasons=reasons)
