"""How a language model is asked for a critique and for a revision, and how its verdict is read."""

from __future__ import annotations

import re

from rlhf_cluster.rewards.critics.base import Case, Critique
from rlhf_cluster.rewards.sample import Failure, shorten

VERDICT = re.compile(r"verdict\W+(violated|fine)\b", re.IGNORECASE)


def critique_request(case: Case) -> str:
    return (
        f"{_shown(case)}\n\n"
        f"{case.principle.critique}\n\n"
        "Explain in at most three sentences. Then end with one line: 'Verdict: violated' if there is something to "
        "point out, 'Verdict: fine' if there is nothing."
    )


def revision_request(case: Case, critique: Critique) -> str:
    return (
        f"{_shown(case)}\n\n"
        f"What is wrong with the answer:\n{critique.text}\n\n"
        f"{case.principle.revision}\n\n"
        "Write the new answer and nothing else."
    )


def read_critique(text: str) -> Critique | Failure:
    """The last verdict counts; a text without one is no critique."""
    verdicts = VERDICT.findall(text)
    if not verdicts:
        return Failure(kind="not_a_number", message=shorten(f"the critique ends without a verdict: {text}"))
    return Critique(text=text, violated=verdicts[-1].casefold() == "violated")


def _shown(case: Case) -> str:
    return f"Request:\n{case.prompt}\n\nAnswer:\n{case.answer.strip()}"
