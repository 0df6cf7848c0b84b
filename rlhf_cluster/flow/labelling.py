"""Labels by people: which pair somebody judges next, and which of its answers stands on the left.

A pair is wanted `overlap` times. A slot of it is taken while somebody has it before them, so that no two people are
given its last one. Sans IO: what was judged and what is taken comes in, a decision comes out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Literal

Completion = Literal["a", "b"]
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
