"""Labels by people: which pair somebody judges next, which answer stands left, and what all labels of a pair say.

A pair is wanted `overlap` times. A slot of it is taken while somebody has it before them, so that no two people are
given its last one. Sans IO: what was judged and what is taken comes in, a decision comes out.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Completion = Literal["a", "b"]
Verdict = Literal["a", "b", "tie"]
Choice = Literal["a", "b", "tie", "skip"]
"""What somebody says of a pair. A skip is no judgement: it fills no slot, and the pair does not come back to them."""


def on_the_left(*, seed: int, number: int, labeler: str) -> Completion:
    """The completion that this person sees on the left of pair `number`, the same however often it is asked.

    Pairs `2k` and `2k + 1` of a set stand the opposite way, so over a whole set each way is shown equally often.

    >>> [on_the_left(seed=1, number=number, labeler="ada") for number in range(6)]
    ['a', 'b', 'b', 'a', 'b', 'a']
    """
    digest = hashlib.sha256(f"{seed}\n{number // 2}\n{labeler}".encode()).digest()
    return "b" if (digest[0] + number) % 2 else "a"


def next_pair(num_labels: Iterable[tuple[int, int]], taken: Mapping[int, int], *, overlap: int) -> int | None:
    """The pair with the fewest labels and people at it; of several the first. None where every slot is filled or taken.

    `num_labels` are pairs that this person may judge, as (number, labels it has); `taken` says how many others have a
    pair before them.
    """
    busy = [(labels + taken.get(number, 0), number) for number, labels in num_labels]
    least, number = min(busy, default=(overlap, -1))
    return number if least < overlap else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Together:
    """What the labels of one pair say."""

    verdict: Verdict
    num_labels: int
    agreement: float
    """Share of the labels that say what most of them say."""


def together(choices: Sequence[Verdict]) -> Together:
    """The choice that more people made than any other; a tie where no choice is ahead. At least one label.

    >>> together(["a", "a", "tie"]).verdict, together(["a", "b"]).verdict, together(["b", "tie"]).verdict
    ('a', 'tie', 'tie')
    """
    counts = Counter(choices).most_common()
    verdict, most = counts[0]
    is_ahead = len(counts) == 1 or most > counts[1][1]
    return Together(verdict=verdict if is_ahead else "tie", num_labels=len(choices), agreement=most / len(choices))
