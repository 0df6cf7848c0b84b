"""Collects preference pairs: two completions of each prompt, labelled by rule or judge, or left to people.

consumes     prompts of the job's stream, by number; what is in the file already is passed over
produces     `preferences.jsonl` in the job's directory, a block of rows at a time
waits for    the sampler, then reward servers and judge, while the workers go on sampling
unblocked by their answers; each wait is bounded
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Collection, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager, closing
from typing import Any

import numpy as np

from rlhf_cluster.config.generation import PreferenceSettings
from rlhf_cluster.data.preferences import Preference
from rlhf_cluster.driver.account import Account, Failures
from rlhf_cluster.driver.json_lines import JsonLines, plain
from rlhf_cluster.driver.labels import Label, by_rewards, by_verdict
from rlhf_cluster.driver.pair_rows import FILE_NAME, PairFigures
from rlhf_cluster.driver.workbench import Workbench, plain_prompt
from rlhf_cluster.records import RolloutGroup, RolloutRequest
from rlhf_cluster.rewards.judges.base import Comparison, Judge, Judgement, Verdict
from rlhf_cluster.rewards.judges.settings import JudgeSettings
from rlhf_cluster.rewards.judges.table import constitution_of, judge_label, make_judge
from rlhf_cluster.rewards.sample import Failure
from rlhf_cluster.rewards.server import samples_of

SEED_OFFSET = 2 << 40
"""Requests are numbered from here: no other task of the job shares their random numbers."""
LABELS = ("rule", "judge", "none")


class PreferenceCollector:
    """A prompt's pair depends on the job's seed and the prompt's number alone: a job that was interrupted goes on as if
    it had not been."""

    def __init__(self, bench: Workbench, settings: PreferenceSettings) -> None:
        self.path = bench.job_dir / FILE_NAME
        self._bench = bench
        self._settings = settings
        self._sampling = bench.sampler.sampling(temperature=settings.temperature)
        self._num_total = settings.num_pairs or bench.prompts.num_rows
        self._failures = Failures(bench)
        self._figures = PairFigures()
        self._num_identical = 0
        self._account = Account(
            bench, task="preferences", path=self.path, num_total=self._num_total, metrics=self.metrics
        )
        self._labeler = _labeler(settings)
        self._labelled_by = _labelled_by(settings)

    @property
    def progress(self) -> tuple[int, int]:
        return self._account.num_done, self._num_total

    async def run(self, stop: asyncio.Event) -> bool:
        """Collect until all is done, which gives True, or until `stop` is set and the block at hand is written."""
        is_finished = False
        with closing(JsonLines(self.path)) as file:
            done = self._read(file)
            self._account.begin("collecting preferences", num_done=len(done))
            blocks = self._bench.blocks(self._requests(done))
            async with _opened(self._settings.judge) as judge, aclosing(blocks):
                async for groups in blocks:
                    rows = [pair.columns() for pair in await self._pairs(groups, judge)]
                    file.append(rows)
                    for row in rows:
                        self._figures.add(row)
                    self._account.advance(len(groups))
                    if stop.is_set():
                        break
                else:
                    is_finished = True
        self._account.end()
        return is_finished

    def metrics(self) -> dict[str, float]:
        return self._figures.metrics() | {
            "preferences/num_identical": float(self._num_identical),
            "preferences/num_invalid": float(self._failures.num_groups),
        }

    def _read(self, file: JsonLines) -> set[str]:
        """Take up what a former driver of the job has collected: the prompts that are done."""
        done = set()
        for row in file.rows():
            if row.get("provenance", {}).get("labels") in LABELS:
                self._figures.add(row)
                done.add(row["prompt_id"])
        return done

    def _requests(self, done: Collection[str]) -> Iterator[RolloutRequest]:
        for number in range(self._num_total):
            prompt = self._bench.prompts[number]
            if prompt.prompt_id not in done:
                yield self._bench.sampler.request(
                    SEED_OFFSET + number, prompt, num_completions=2, sampling=self._sampling
                )

    async def _pairs(self, groups: Sequence[RolloutGroup], judge: Judge | None) -> list[Preference]:
        """Those that differ and that nobody failed on."""
        different = [group for group in groups if group.texts[0] != group.texts[1]]
        self._num_identical += len(groups) - len(different)
        scored = await self._bench.scored(different)
        if judge is None:
            judgements: list[Judgement | None] = [None] * len(scored)
        else:
            judgements = [*await judge.compare([self._comparison(group) for group in scored])]
        pairs = [self._pair(group, judgement) for group, judgement in zip(scored, judgements, strict=True)]
        return [pair for pair in pairs if pair is not None]

    def _pair(self, group: RolloutGroup, judgement: Judgement | None) -> Preference | None:
        if self._settings.labels == "rule":
            self._failures.observe(group)
            if group.invalid:
                return None
        elif judgement is not None:
            outcome = judgement.p_a if isinstance(judgement, Verdict) else judgement
            self._failures.observe_outcome(group, outcome, of="judge")
            if isinstance(judgement, Failure):
                return None
        label = self._label(group, judgement)
        a, b = group.texts
        return Preference(
            pair_id=f"{self._bench.job.name}:{group.prompt.prompt_id}",
            prompt=self._bench.prompts.row(group.request_id - SEED_OFFSET).prompt,
            a=a,
            b=b,
            label=label.choice if label else None,
            labeler=self._labeler,
            kind=None if self._settings.labels == "none" else self._settings.labels,
            time_s=round(self._bench.clock.time(), 3),
            provenance={
                **self._bench.provenance(group, sampling=self._sampling),
                "labels": self._settings.labels,
                **self._labelled_by,
            },
            item=_details(group, label, judgement),
        )

    def _label(self, group: RolloutGroup, judgement: Judgement | None) -> Label | None:
        settings = self._settings
        if isinstance(judgement, Verdict):
            return by_verdict(judgement, tie_band=settings.tie_band)
        if settings.labels == "none":
            return None
        assert group.rewards is not None, 'labels = "rule" comes with rewards'
        draw = np.random.default_rng([self._bench.job.seed, group.request_id]).random()
        gap = float(group.rewards[0]) - float(group.rewards[1])
        return by_rewards(gap, noise_scale=settings.noise_scale, tie_band=settings.tie_band, draw=draw)

    def _comparison(self, group: RolloutGroup) -> Comparison:
        prompt = self._bench.prompts.row(group.request_id - SEED_OFFSET).prompt
        a, b = samples_of(group)
        return Comparison(prompt=plain_prompt(prompt), a=a, b=b)


@asynccontextmanager
async def _opened(settings: JudgeSettings | None) -> AsyncGenerator[Judge | None]:
    if settings is None:
        yield None
        return
    judge = make_judge(settings)
    try:
        await judge.start()
        yield judge
    finally:
        await judge.close()


def _details(group: RolloutGroup, label: Label | None, judgement: Judgement | None) -> dict[str, Any]:
    """The columns beside those of a preference, without those that are not known."""
    rewards = [None, None] if group.rewards is None else group.rewards.tolist()
    details = {
        "prompt_id": group.prompt.prompt_id,
        "p_a": label.p_a if label else None,
        **{f"score_{side}": value for side, value in zip("ab", rewards, strict=True)},
        "position_bias": judgement.position_bias if isinstance(judgement, Verdict) else None,
        "reason": (judgement.reason or None) if isinstance(judgement, Verdict) else None,
        "num_tokens": group.lengths.tolist(),
        "finish_reasons": list(group.finish_reasons),
        "row": dict(group.prompt.item) or None,
    }
    return {name: value for name, value in details.items() if plain(value) is not None}


def _labeler(settings: PreferenceSettings) -> str | None:
    if settings.judge is not None:
        return judge_label(settings.judge)
    return "rewards" if settings.labels == "rule" else None


def _labelled_by(settings: PreferenceSettings) -> dict[str, Any]:
    """How the labels come about, beside by whom."""
    if settings.judge is not None:
        constitution = constitution_of(settings.judge)
        return {"constitution": constitution.identity if constitution else None}
    return {"noise_scale": settings.noise_scale} if settings.labels == "rule" else {}
