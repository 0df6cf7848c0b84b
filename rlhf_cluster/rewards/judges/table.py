"""From a judge's settings to the judge."""

from __future__ import annotations

from rlhf_cluster.data.constitution import Constitution, load_constitution
from rlhf_cluster.rewards.judges.base import Judge
from rlhf_cluster.rewards.judges.endpoint import EndpointJudge
from rlhf_cluster.rewards.judges.local import LocalJudge
from rlhf_cluster.rewards.judges.rule import RuleJudge
from rlhf_cluster.rewards.judges.settings import EndpointJudgeSettings, JudgeSettings, RuleJudgeSettings


def make_judge(settings: JudgeSettings) -> Judge:
    """Not started yet. Raises `ConfigError` or `DataError` for what the settings name and is not there."""
    if isinstance(settings, RuleJudgeSettings):
        return RuleJudge(settings)
    constitution = constitution_of(settings)
    principles = constitution.principles if constitution else ()
    if isinstance(settings, EndpointJudgeSettings):
        return EndpointJudge(settings, principles)
    return LocalJudge(settings, principles)


def constitution_of(settings: JudgeSettings) -> Constitution | None:
    """What the judge compares by. Raises `DataError`."""
    if isinstance(settings, RuleJudgeSettings) or settings.constitution is None:
        return None
    return load_constitution(settings.constitution)


def judge_label(settings: JudgeSettings) -> str:
    """Who judged, in one line of provenance; no address and no key."""
    if isinstance(settings, RuleJudgeSettings):
        return f"rule:{settings.function}"
    return f"{settings.type}:{settings.model}"
