"""The win rate by a judge: each answer of a model against the baseline's of the same prompt and number."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
from pydantic import TypeAdapter, ValidationError

from rlhf_cluster.config.load import parse
from rlhf_cluster.driver.answers import Answer
from rlhf_cluster.errors import ConfigError
from rlhf_cluster.functional.clusters import clustered_rate
from rlhf_cluster.report.comparison import Compared
from rlhf_cluster.report.evaluations import Evaluation
from rlhf_cluster.report.report import SEED, Report
from rlhf_cluster.rewards.judges.base import Comparison, Judge, Verdict
from rlhf_cluster.rewards.judges.settings import JudgeSettings
from rlhf_cluster.rewards.judges.table import judge_label, make_judge
from rlhf_cluster.rewards.sample import RewardSample


def read_judge(path: Path) -> JudgeSettings:
    """Of a TOML file that holds a judge as `[preferences.judge]` of a job does. Raises `ConfigError`."""
    with _complaints(f"{path} describes no judge"):
        return TypeAdapter(JudgeSettings).validate_python(parse(path))


def judged(report: Report, settings: JudgeSettings) -> Report:
    """With the judge's win rates beside those of the reward."""
    return asyncio.run(_judge_all(report, settings))


@contextmanager
def _complaints(about: str) -> Generator[None]:
    try:
        yield
    except ValidationError as error:
        lines = [f"  {'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()]
        raise ConfigError("\n".join([f"{about}:", *lines])) from error


async def _judge_all(report: Report, settings: JudgeSettings) -> Report:
    by_name = {each.name: each for each in report.evaluations}
    with _complaints("the judge cannot be made"):
        judge = make_judge(settings)
    try:
        await judge.start()
        compared = [await _judged(each, by_name[each.name], report.baseline, judge) for each in report.compared]
    finally:
        await judge.close()
    return replace(report, compared=tuple(compared), judge=judge_label(settings))


async def _judged(compared: Compared, ours: Evaluation, theirs: Evaluation, judge: Judge) -> Compared:
    others = theirs.by_prompt()
    pairs = [
        (prompt, a, b)
        for prompt, answers in ours.by_prompt().items()
        for a, b in zip(answers, others.get(prompt, ()), strict=False)
    ]
    judgements = await judge.compare([Comparison(prompt=prompt, a=_sample(a), b=_sample(b)) for prompt, a, b in pairs])
    by_prompt: dict[str, list[float]] = {}
    for (prompt, _, _), judgement in zip(pairs, judgements, strict=True):
        if isinstance(judgement, Verdict):
            by_prompt.setdefault(prompt, []).append(_win(judgement))
    num_judged = sum(map(len, by_prompt.values()))
    rates = [float(np.mean(wins)) for wins in by_prompt.values()]
    return replace(
        compared,
        judged=clustered_rate(rates, seed=SEED) if rates else None,
        num_unjudged=len(pairs) - num_judged,
    )


def _win(verdict: Verdict) -> float:
    """A verdict counts as a whole however sure the judge is; one that favours neither is a tie."""
    return 0.5 if verdict.p_a == 0.5 else float(verdict.p_a > 0.5)


def _sample(answer: Answer) -> RewardSample:
    return RewardSample(
        prompt=answer.prompt,
        completion=answer.completion,
        finish_reason=answer.finish_reason,
        num_tokens=answer.length,
        item=answer.item,
        token_ids=None,
    )
