"""A report as a value: which evaluations, against which one, by which reward; what the page and the table show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rlhf_cluster.driver.answers import TOTAL
from rlhf_cluster.driver.evaluation_file import interval_data
from rlhf_cluster.driver.json_lines import plain
from rlhf_cluster.errors import ConfigError, did_you_mean
from rlhf_cluster.functional.statistics import Interval
from rlhf_cluster.report.comparison import Compared, Shown, choose, compare
from rlhf_cluster.report.evaluations import Evaluation

SEED = 0
"""Of the bootstrap over prompts; fixed, so that a report made again is the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    evaluations: tuple[Evaluation, ...]
    baseline: Evaluation
    by: str
    """The reward that says what is good."""
    proxy: str | None
    """The reward that was trained on, where it is another one."""
    compared: tuple[Compared, ...]
    shown: tuple[Shown, ...]
    judge: str | None = None
    """Who judged."""

    @property
    def policies(self) -> list[Evaluation]:
        return [each for each in self.evaluations if each.answers]

    @property
    def figures(self) -> list[tuple[str, list[Interval | None]]]:
        """Every figure that any has, with what each comes to."""
        names = dict.fromkeys(name for each in self.evaluations for name in each.figures)
        return [(name, [each.figures.get(name) for each in self.evaluations]) for name in names]


def make_report(
    evaluations: Sequence[Evaluation], *, against: Evaluation | None = None, by: str | None = None, proxy: str | None
) -> Report:
    """Raises `ConfigError` for a reward that no evaluation has, `DataError` for evaluations of different prompts."""
    policies = [each for each in evaluations if each.answers]
    baseline = against or (policies or list(evaluations))[0]
    by = _reward(by, policies, preferred=("gold", TOTAL))
    others = [name for each in policies for name in each.rewards if name not in (by, TOTAL)]
    if proxy is not None or others:
        proxy = _reward(proxy, policies, preferred=sorted(others, key=lambda name: name != "proxy"))
    rivals = [each for each in policies if each is not baseline]
    return Report(
        evaluations=tuple(evaluations),
        baseline=baseline,
        by=by,
        proxy=proxy,
        compared=tuple(compare(each, baseline, by=by, seed=SEED) for each in rivals),
        shown=tuple(choose(policies, baseline=baseline, by=by)) if policies else (),
    )


def report_data(report: Report) -> dict[str, Any]:
    """As it stands in `report.json`."""
    return plain(
        {
            "against": report.baseline.name,
            "by": report.by,
            "proxy": report.proxy,
            "judge": report.judge,
            "intervals": {"confidence": 0.95, "method": "percentile bootstrap over prompts", "seed": SEED},
            "evaluations": [_evaluation_data(each) for each in report.evaluations],
            "compared": [_compared_data(each) for each in report.compared],
        }
    )


def _reward(name: str | None, policies: Sequence[Evaluation], *, preferred: Sequence[str]) -> str:
    has = list(dict.fromkeys(reward for each in policies for reward in each.rewards))
    if name is None:
        return next((each for each in preferred if each in has), TOTAL)
    if name not in has:
        raise ConfigError(
            f"there is no reward {name!r} in these evaluations{did_you_mean(name, has)}; there are {', '.join(has)}"
        )
    return name


def _evaluation_data(evaluation: Evaluation) -> Mapping[str, Any]:
    taken = (
        "step",
        "model",
        "fingerprint",
        "reference",
        "num_prompts",
        "num_answers",
        "num_invalid",
        "seed",
        "figures",
    )
    return {
        "name": evaluation.name,
        "job_dir": evaluation.job_dir,
        **{key: evaluation.data[key] for key in taken},
        "reward_model": evaluation.reward_model,
    }


def _compared_data(compared: Compared) -> Mapping[str, Any]:
    return {
        "name": compared.name,
        "num_prompts": compared.num_prompts,
        "win_rate": interval_data(compared.win_rate),
        "difference": interval_data(compared.difference),
        "win_rate_by_judge": None if compared.judged is None else interval_data(compared.judged),
        "num_unjudged": compared.num_unjudged,
    }
