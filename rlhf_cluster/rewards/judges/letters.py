"""From the log-probabilities of the first token of a reply to P(option A), or to why there is none."""

from __future__ import annotations

from collections.abc import Sequence
from math import exp
from operator import itemgetter

from rlhf_cluster.rewards.judges.wording import LETTERS
from rlhf_cluster.rewards.sample import Failure, shorten


def letter_preference(logprobs: Sequence[tuple[str, float]], *, min_mass: float) -> float | Failure:
    """P(A) / (P(A) + P(B)) over the given tokens and their log-probabilities, " A" and "A" being the same letter.

    A letter that is not among them is at most as likely as the least likely that is, and counts as that.
    """
    masses = [sum(exp(logprob) for token, logprob in logprobs if token.strip() == letter) for letter in LETTERS]
    if sum(masses) < min_mass or not any(masses):
        likeliest = sorted(logprobs, key=itemgetter(1), reverse=True)[:3]
        shown = ", ".join(repr(token) for token, _ in likeliest)
        return Failure(
            kind="not_a_number",
            message=shorten(f"A and B have a probability of {sum(masses):.3g} together; likelier are {shown}"),
        )
    least = exp(min(logprob for _, logprob in logprobs))
    first, second = (mass or least for mass in masses)
    return first / (first + second)
