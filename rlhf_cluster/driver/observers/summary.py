"""The end of a run in a screenful: what was learned, three completions before and after, and where everything lies.

Made from journal entries alone, so it is the same for a job that has just ended and for one that ended last week.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlhf_cluster.driver.observers import curve
from rlhf_cluster.driver.observers.excerpt import excerpt
from rlhf_cluster.driver.observers.figures import duration, figure
from rlhf_cluster.driver.observers.headline import headline
from rlhf_cluster.driver.record_json import parse_object

NUM_COMPLETIONS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class BeforeAfter:
    """One held-out prompt and what the policy answered at the first and at the last evaluation."""

    prompt: str
    before: str
    before_reward: float | None
    after: str
    after_reward: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    job_name: str
    outcome: str
    message: str
    step: int
    num_steps: int
    wall_s: float
    """From the first start of the job to its end, pauses between a kill and a resume included."""
    measure: str
    """What the job is judged by on held-out data: `reward`, `accuracy`, `loss`, or nothing."""
    before: float | None
    after: float | None
    """Of the first and of the last evaluation; None when there was none, or no second one."""
    guards: tuple[str, ...]
    """What the guards have warned about; what one has ended the job for is the `message`."""
    completions: tuple[BeforeAfter, ...]
    job_dir: Path
    curve: Path | None
    checkpoint: Path | None

    def text(self) -> str:
        paragraphs = [self._headline(), *map(_completion_text, self.completions), self._places()]
        return "\n\n".join(paragraph for paragraph in paragraphs if paragraph)

    def next_command(self) -> str | None:
        if self.checkpoint is None:
            return None
        # A reward model has nothing to say; what it is worth stands in its report.
        return f"rlhf report {self.job_dir}" if _is_reward_model(self.checkpoint) else f"rlhf chat {self.checkpoint}"

    def _headline(self) -> str:
        steps = f" after {self.step} of {self.num_steps} steps" if self.num_steps else ""
        lines = [f"{self.job_name}: {self.outcome}{steps}, {duration(self.wall_s)}"]
        if self.message and self.outcome != "succeeded":
            lines.append(self.message)
        if self.before is not None and self.after is None:
            lines.append(f"held-out {self.measure} {self.before:.3f} before the first step")
        if self.before is not None and self.after is not None:
            gain = self.after - self.before
            lines.append(f"held-out {self.measure} {self.before:.3f} -> {self.after:.3f} ({gain:+.3f})")
        return "\n".join([*lines, *self.guards])

    def _places(self) -> str:
        places = (
            ("learning curve", self.curve),
            ("checkpoint", self.checkpoint),
            ("job directory", self.job_dir),
            ("next", self.next_command()),
            ("go on", f"rlhf resume {self.job_dir}" if self.outcome == "interrupted" else None),
        )
        return "\n".join(f"{label:<16}{place}" for label, place in places if place is not None)


def summarise(entries: Iterable[Mapping[str, Any]]) -> Summary | None:
    """Fold the entries of a journal, oldest first; None when the job never started."""
    kinds: dict[str, list[Mapping[str, Any]]] = {}
    last: Mapping[str, Any] = {}
    for last in entries:
        kinds.setdefault(last["event"], []).append(last)
    if "JobStarted" not in kinds:
        return None
    started, ended = kinds["JobStarted"][-1], _newest(kinds, "JobEnded", since=kinds["JobStarted"][-1])
    evaluations = kinds.get("Evaluated", [])
    first = evaluations[0] if evaluations else {}
    newest = evaluations[-1] if len(evaluations) > 1 else {}
    judged = headline((newest or first).get("metrics", {}))
    job_dir = Path(started["job_dir"])
    picture = job_dir / curve.FILE_NAME
    return Summary(
        job_name=started["job_name"],
        outcome=ended.get("outcome", "unfinished"),
        message=ended.get("message", ""),
        step=last["step"],
        num_steps=started["num_steps"],
        wall_s=last["time_s"] - kinds["JobStarted"][0]["time_s"],
        measure=judged.word if judged else "",
        before=first.get("metrics", {}).get(judged.metric) if judged else None,
        after=newest.get("metrics", {}).get(judged.metric) if judged else None,
        guards=tuple(entry["text"] for entry in kinds.get("GuardTripped", []) if entry["deed"] == "warn"),
        completions=_pairs(first.get("samples", []), newest.get("samples", [])),
        job_dir=job_dir,
        curve=picture if picture.exists() else None,
        checkpoint=_checkpoint(kinds, ended),
    )


def answer(completion: str, *, reward: float | None) -> str:
    """One line: the reward in brackets, where there is one, and the completion."""
    return ("" if reward is None else f"[{figure(reward)}] ") + excerpt(completion, width=200)


def _is_reward_model(checkpoint: Path) -> bool:
    try:
        config = parse_object((checkpoint / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return any(str(name).endswith("ForSequenceClassification") for name in config.get("architectures") or ())


def _newest(kinds: Mapping[str, list[Mapping[str, Any]]], kind: str, *, since: Mapping[str, Any]) -> Mapping[str, Any]:
    """The last entry of a kind, unless it is older than `since`: an end before a resume is not the end."""
    entries = kinds.get(kind, [])
    return entries[-1] if entries and entries[-1]["time_s"] >= since["time_s"] else {}


def _checkpoint(kinds: Mapping[str, list[Mapping[str, Any]]], ended: Mapping[str, Any]) -> Path | None:
    saved = kinds.get("CheckpointSaved", [])
    path = ended.get("checkpoint") or (saved[-1]["path"] if saved else None)
    return Path(path) if path else None


def _pairs(before: Iterable[Mapping[str, Any]], after: Iterable[Mapping[str, Any]]) -> tuple[BeforeAfter, ...]:
    """Samples of the same prompt text, in the order of the first evaluation."""
    answers = {sample["prompt"]: sample for sample in after}
    pairs = [(sample, answers[sample["prompt"]]) for sample in before if sample["prompt"] in answers]
    return tuple(
        BeforeAfter(
            prompt=old["prompt"],
            before=old["completion"],
            before_reward=old["reward"],
            after=new["completion"],
            after_reward=new["reward"],
        )
        for old, new in pairs[:NUM_COMPLETIONS]
    )


def _completion_text(pair: BeforeAfter) -> str:
    # A chat template opens every prompt with the same words; what tells prompts apart stands at the end.
    return "\n".join(
        [
            f"prompt  {excerpt(pair.prompt, width=110, keep='end')}",
            f"before  {answer(pair.before, reward=pair.before_reward)}",
            f"after   {answer(pair.after, reward=pair.after_reward)}",
        ]
    )
