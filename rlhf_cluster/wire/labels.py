"""Label sets: pairs of completions that people judge side by side, their labels, and how far those can be trusted."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator

from rlhf_cluster.wire.base import Figure, Message, Request

MAX_PAIRS = 10_000
"""In one request."""
MAX_TAKEN_S = 86_400.0
JUDGEMENT = ("label", "tie", "labeler", "labelers", "num_labels", "agreement", "kind", "time_s")
"""Columns of a pair that was judged before, as an export has them."""
SetName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
"""By which a set is named everywhere: in commands, in addresses and in the name of its export."""
Side = Literal["left", "right", "tie", "skip"]
"""What is said of a pair by whoever sees it; which completion stood where is known to the service alone."""


class ChatMessage(Message):
    role: str
    content: str


class NewPair(Request):
    """Two completions of one prompt: `completion_a` and `completion_b`, or `chosen` and `rejected` to be judged anew.
    Columns of other names are kept as provenance; nobody who judges sees them, nor what was said of the pair before."""

    model_config = ConfigDict(frozen=True, extra="allow")

    prompt: str | Annotated[list[ChatMessage], Field(min_length=1)]
    completion_a: str | None = None
    completion_b: str | None = None
    chosen: str | None = None
    """Passed over where `completion_a` and `completion_b` are given."""
    rejected: str | None = None
    pair_id: str | None = Field(None, min_length=1, max_length=200)
    """Left out, its number in the set."""

    @model_validator(mode="after")
    def _two_completions(self) -> NewPair:
        if None in (self.completion_a, self.completion_b) and None in (self.chosen, self.rejected):
            names = ("completion_a", "completion_b", "chosen", "rejected")
            has = ", ".join(name for name in names if getattr(self, name) is not None) or "none of them"
            raise ValueError(f"give completion_a and completion_b, or chosen and rejected; this pair has {has}")
        return self

    @property
    def completions(self) -> tuple[str, str]:
        """A and B; what was chosen before is A where nobody says which is which."""
        if self.completion_a is not None and self.completion_b is not None:
            return self.completion_a, self.completion_b
        return self.chosen or "", self.rejected or ""

    @property
    def provenance(self) -> dict[str, Any]:
        """Where the pair comes from, as its columns say, and under `before` what was said of it."""
        columns = {name: value for name, value in (self.model_extra or {}).items() if value is not None}
        told = columns.pop("provenance", {})
        before = {name: columns.pop(name) for name in JUDGEMENT if name in columns}
        if self.completions == (self.chosen, self.rejected):
            before.setdefault("label", "tie" if before.get("tie") else "a")
        origin = told if isinstance(told, dict) else {"provenance": told}
        return {**origin, **columns, **({"before": before} if "label" in before else {})}


Pairs = Annotated[list[NewPair], Field(min_length=1, max_length=MAX_PAIRS)]


class CreateLabelSet(Request):
    name: SetName
    pairs: Pairs
    guidelines: str = Field("", max_length=100_000)
    """Shown to whoever judges: what makes one answer better than another."""
    overlap: int = Field(1, ge=1, le=1000)
    """Labels that are wanted of each pair, each by another person."""
    seed: int = Field(0, ge=0, lt=2**31)
    """Of the sides on which completions are shown."""


class AddPairs(Request):
    pairs: Pairs


class LabelSet(Message):
    name: str
    created_by: str
    created_s: float
    seed: int
    overlap: int
    guidelines: str
    num_pairs: int
    num_labels: int
    """Choices and ties; what was skipped or undone is not among them."""
    num_done: int
    """Pairs that have as many labels as are wanted."""


class Shown(Message):
    """A pair as one person sees it."""

    pair_id: str
    prompt: str
    left: str
    right: str
    until_s: float
    """Until then its slot is kept for them."""


class Turn(Message):
    """What one person has to do next."""

    pair: Shown | None
    num_mine: int
    """Labels of theirs, skips included."""
    num_left: int
    """Pairs that they may still judge, this one included."""
    num_elsewhere: int
    """Of those, pairs whose last slots others have before them now; they come back when those are not judged."""


class NewLabel(Request):
    pair_id: str = Field(max_length=200)
    choice: Side
    taken_s: float = Field(0.0, ge=0, le=MAX_TAKEN_S, allow_inf_nan=False)
    """Seconds from seeing the pair to choosing."""


class Label(Message):
    label_id: int
    pair_id: str
    labeler: str
    choice: Side
    taken_s: float
    time_s: float


class LabelerStatistics(Message):
    labeler: str
    num_labels: int
    num_ties: int
    num_skips: int
    num_left: int
    """Of the labels that are no ties, those for what stood left."""
    median_s: Figure


class Agreement(Message):
    """Two people about the pairs that both have judged."""

    labelers: tuple[str, str]
    num_pairs: int
    agreement: float
    """Share of the pairs of which both said the same."""
    kappa: Figure
    """Cohen's; null where chance alone explains what they said."""


class LabelStatistics(Message):
    num_labels: int
    num_skips: int
    num_undone: int
    tie_rate: Figure
    """Of the labels."""
    skip_rate: Figure
    """Of labels and skips."""
    left_share: Figure
    """Of the labels that are no ties; far from a half, people look at where an answer stands, not at what it says."""
    left_interval: tuple[float, float]
    """In which that share lies (95 %, Wilson)."""
    median_s: Figure
    agreement: Figure
    """Share of equal labels among all two of one pair."""
    labelers: list[LabelerStatistics]
    """Who has most labels first."""
    pairs_of_labelers: list[Agreement]
    """Who have most pairs in common first."""
