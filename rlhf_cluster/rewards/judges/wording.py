"""How a language model is asked which of two completions is better."""

from __future__ import annotations

from collections.abc import Sequence

from rlhf_cluster.data.constitution import Principle
from rlhf_cluster.rewards.judges.base import Comparison

LETTERS = ("A", "B")
WITHOUT_PRINCIPLES = "the answer that is more helpful, honest and harmless"


def question(comparison: Comparison, principles: Sequence[Principle]) -> str:
    """Completion a stands as option A and b as option B; the first token of the reply is the verdict."""
    wishes = [principle.comparison for principle in principles] or [WITHOUT_PRINCIPLES]
    choose = "\n".join(f"- {wish}" for wish in wishes)
    return (
        "Two assistants have answered the same request. Choose:\n"
        f"{choose}\n\n"
        f"Request:\n{comparison.prompt}\n\n"
        f"Option A:\n{comparison.a.completion.strip()}\n\n"
        f"Option B:\n{comparison.b.completion.strip()}\n\n"
        "Which option do you choose? Reply with one letter, A or B."
    )


def as_plain_text(asked: str) -> str:
    """For models without a chat template: they go on with a letter."""
    return f"{asked}\n\nChosen option:"
