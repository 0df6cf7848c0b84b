"""Preferences: which of two completions of a prompt is better, by whose judgement, and where the two came from.

In a file they have the columns of the field's data sets, `prompt`, `chosen` and `rejected`, so that it is a source of
DPO and reward-model jobs as it is, and beside them all that is needed to read back exactly what was written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from rlhf_cluster.data.chats import Messages, messages_of
from rlhf_cluster.errors import DataError

Label = Literal["a", "b", "tie", "skip"]
Kind = Literal["person", "rule", "judge"]
LABELS = ("a", "b", "tie", "skip")
KINDS = ("person", "rule", "judge")
MAJORITY = "majority"
COLUMNS = (
    *("pair_id", "prompt", "chosen", "rejected", "tie", "completion_a", "completion_b", "label"),
    *("labeler", "kind", "time_s", "provenance", "other_columns"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Preference:
    """One judgement of one pair; a pair that several judged has several."""

    pair_id: str
    prompt: str | Messages
    """Before any template."""
    a: str
    b: str
    label: Label | None
    """Which is better. None where nobody has said yet; `skip` where somebody could not say."""
    labeler: str | None = None
    """Who said it: a person's name, a rule's, a judge's."""
    kind: Kind | None = None
    time_s: float | None = None
    """When, in seconds since 1970."""
    provenance: Mapping[str, Any] = field(default_factory=dict)
    """How the completions came about: policy, weight version, sampling, seeds, versions of the software."""
    item: Mapping[str, Any] = field(default_factory=dict)
    """Other columns, such as `margin`; none of them null."""

    @property
    def is_decided(self) -> bool:
        """Whether something can be learned from it; a tie is a decision."""
        return self.label in ("a", "b", "tie")

    def columns(self) -> dict[str, Any]:
        """As a row of a file. `chosen` and `rejected` are a and b where it is a tie, and null where nothing is decided.

        Raises `DataError` when a column of `item` has a name that is taken.
        """
        if taken := sorted(set(self.item) & set(COLUMNS)):
            raise DataError(f"pair {self.pair_id}: the column {taken[0]!r} has a meaning here; call yours differently")
        chosen, rejected = (self.b, self.a) if self.label == "b" else (self.a, self.b)
        return {
            "pair_id": self.pair_id,
            "prompt": self.prompt if isinstance(self.prompt, str) else list(self.prompt),
            "chosen": chosen if self.is_decided else None,
            "rejected": rejected if self.is_decided else None,
            "tie": self.label == "tie",
            "completion_a": self.a,
            "completion_b": self.b,
            "label": self.label,
            "labeler": self.labeler,
            "kind": self.kind,
            "time_s": self.time_s,
            "provenance": self.provenance,
            **self.item,
        }


def preference_of(columns: Mapping[str, Any], *, where: str) -> Preference:
    """The inverse of `Preference.columns`, and an import of others' data: of `chosen` and `rejected` alone the first is
    a, and `completion_a` and `completion_b` alone are a pair that nobody has judged. Raises `DataError` saying `where`.
    """
    given = {name: value for name, value in columns.items() if value is not None}
    a, b, label = _completions(given, where)
    if label is not None and label not in LABELS:
        raise DataError(f"{where}: label is {label!r}; it must be one of {', '.join(LABELS)}, or null")
    if given.get("kind") not in (*KINDS, None):
        raise DataError(f"{where}: kind is {given['kind']!r}; it must be one of {', '.join(KINDS)}, or null")
    prompt = given.get("prompt")
    return Preference(
        pair_id=str(given.get("pair_id", given.get("prompt_id", where))),
        prompt=prompt if isinstance(prompt, str) else messages_of(prompt, where=where),
        a=a,
        b=b,
        label=label,
        labeler=given.get("labeler"),
        kind=given.get("kind"),
        time_s=given.get("time_s"),
        provenance=given.get("provenance", {}),
        item={name: value for name, value in given.items() if name not in COLUMNS},
    )


def _completions(given: Mapping[str, Any], where: str) -> tuple[str, str, Any]:
    """(a, b, label)."""
    if {"completion_a", "completion_b"} <= set(given):
        a, b, label = given["completion_a"], given["completion_b"], given.get("label")
    elif {"chosen", "rejected"} <= set(given):
        a, b, label = given["chosen"], given["rejected"], "tie" if given.get("tie") else "a"
    else:
        raise DataError(
            f"{where} is no pair: it needs `completion_a` and `completion_b`, or `chosen` and `rejected`; its columns "
            f"are {', '.join(given)}"
        )
    if not isinstance(a, str) or not isinstance(b, str):
        raise DataError(f"{where}: the two completions must be texts; they are {a!r:.80} and {b!r:.80}")
    return a, b, label


def majority(preferences: Sequence[Preference]) -> list[Preference]:
    """One judgement a pair, in the order of their first: what most said, and a tie where nothing is ahead.

    Who skipped has not said anything. `provenance["labels"]` keeps every judgement and `provenance["agreement"]` the
    share of those that said the same as the result. A pair that one alone judged stays as it is. Raises `DataError` for
    two pairs of one id.
    """
    of_pair: dict[str, list[Preference]] = {}
    for preference in preferences:
        of_pair.setdefault(preference.pair_id, []).append(preference)
    return [_most(labels) for labels in of_pair.values()]


def _most(labels: Sequence[Preference]) -> Preference:
    first = labels[0]
    for other in labels[1:]:
        if (other.prompt, other.a, other.b) != (first.prompt, first.a, first.b):
            raise DataError(f"two different pairs are called {first.pair_id!r}; give each an id of its own")
    if len(labels) == 1:
        return first
    votes = Counter(each.label for each in labels if each.is_decided)
    result = _winner(votes)
    told = [
        {"labeler": each.labeler, "kind": each.kind, "label": each.label, "time_s": each.time_s}
        for each in labels
        if each.label is not None
    ]
    kinds = Counter(each.kind for each in labels if each.label is not None)
    times = [each.time_s for each in labels if each.time_s is not None]
    overlap = {"labels": told, "agreement": votes[result] / votes.total() if votes else None}
    return replace(
        first,
        label=result or ("skip" if told else None),
        labeler=MAJORITY if told else None,
        kind=kinds.most_common(1)[0][0] if kinds else None,
        time_s=max(times, default=None),
        provenance={**first.provenance, **overlap},
    )


def _winner(votes: Counter[Label | None]) -> Label | None:
    """None without votes."""
    ranked = votes.most_common(2)
    if not ranked:
        return None
    return "tie" if len(ranked) == 2 and ranked[0][1] == ranked[1][1] else ranked[0][0]
