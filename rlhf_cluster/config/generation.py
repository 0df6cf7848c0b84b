"""What jobs that generate instead of train are told: which pairs to collect and who labels them, what to revise."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from rlhf_cluster.errors import ConfigError
from rlhf_cluster.rewards.critics.settings import CriticSettings
from rlhf_cluster.rewards.judges.settings import JudgeSettings
from rlhf_cluster.settings import Settings


class PreferenceSettings(Settings):
    """Pairs of completions of one prompt, with a label that says which is better; into `preferences.jsonl`."""

    num_pairs: int | None = Field(None, ge=1)
    """Prompts of `data.train` to draw a pair for, in the job's order and for as many epochs as it takes; left out,
    each row once. Pairs of two identical completions are not kept, so the file may hold fewer."""
    temperature: float = Field(1.0, ge=0)
    """Of the completions. Above 1 they differ more and teach more."""
    labels: Literal["rule", "judge", "none"] = "rule"
    """`rule`: the job's `[[rewards]]`, summed. `judge`: what `[preferences.judge]` says. `none`: for people, later."""
    noise_scale: float | None = Field(None, gt=0)
    """With `rule`: a label is drawn, for completion a with the probability sigmoid(scale * (reward a - reward b)), as
    an annotator who follows the Bradley-Terry model; left out, the larger reward wins."""
    tie_band: float = Field(0.0, ge=0)
    """A difference up to this is a tie: of rewards with `rule`, of the probability from 0.5 with `judge`."""
    judge: JudgeSettings | None = None
    """Who compares, with `labels = "judge"`."""

    @model_validator(mode="after")
    def _judge_where_asked(self) -> PreferenceSettings:
        if (self.labels == "judge") != (self.judge is not None):
            raise ConfigError(
                f"labels = {self.labels!r} {'with' if self.judge else 'without'} a [preferences.judge] table: give the "
                'table together with labels = "judge", and leave it out otherwise'
            )
        if self.labels != "rule" and self.noise_scale is not None:
            raise ConfigError(f'noise_scale with labels = {self.labels!r}: only labels = "rule" draws labels')
        return self


class ConstitutionSettings(Settings):
    """Answers of the policy, criticised by principles and revised; into `revisions.jsonl`, ready for `sft`."""

    constitution: str
    """`word-world`, `general`, or the path of a TOML file of principles."""
    num_prompts: int | None = Field(None, ge=1)
    """Prompts of `data.train`, in the job's order and for as many epochs as it takes; left out, each row once."""
    temperature: float = Field(1.0, ge=0)
    """Of the first answers."""
    num_rounds: int = Field(2, ge=1)
    """Critiques of each answer, each by another principle until all have come, in an order drawn by the job's seed."""
    critic: CriticSettings
    """Who criticises, and who revises unless the policy does."""
    reviser: Literal["critic", "policy"] = "critic"
    """`policy`: the job's own rollout workers write the revision, from the answer, the critique and the principle's
    request."""
    revision_temperature: float = Field(0.7, ge=0)
    """Of revisions that the policy writes."""
    pairs: bool = False
    """Also write each (revision, first answer) that differ to `preferences.jsonl`, the revision preferred."""
