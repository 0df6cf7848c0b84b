"""Constitutional AI, phase 1: the policy answers, a critic holds the answers against principles, and they are revised.

consumes     prompts of the job's stream, by number; what is in the file already is passed over
produces     `revisions.jsonl` in the job's directory, a block of rows at a time; pairs in `preferences.jsonl` if asked
waits for    the sampler, then critic and reviser, round after round, while the workers go on answering
unblocked by their answers; each wait is bounded

(Bai et al. 2022, "Constitutional AI", arXiv:2212.08073, section 3.)
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager, AsyncExitStack, aclosing, closing, nullcontext
from dataclasses import dataclass, field

import numpy as np

from rlhf_cluster.config.generation import ConstitutionSettings
from rlhf_cluster.data.constitution import Principle, load_constitution
from rlhf_cluster.data.preferences import Preference
from rlhf_cluster.driver.account import Account, Failures
from rlhf_cluster.driver.json_lines import JsonLines
from rlhf_cluster.driver.pair_rows import FILE_NAME as PAIRS_FILE
from rlhf_cluster.driver.reviser import PolicyReviser
from rlhf_cluster.driver.revision_rows import FILE_NAME, Revision, RevisionFigures, Round
from rlhf_cluster.driver.workbench import Workbench, plain_prompt
from rlhf_cluster.records import RolloutGroup, RolloutRequest
from rlhf_cluster.rewards.critics.base import Case, Critic, Critique
from rlhf_cluster.rewards.critics.table import critic_label, make_critic
from rlhf_cluster.rewards.sample import Failure

SEED_OFFSET = 3 << 40
"""Requests are numbered from here: no other task of the job shares their random numbers."""

LABELS = "revision"
"""What the provenance of a pair says where a revision is preferred to the first answer."""


@dataclass(slots=True, kw_only=True)
class _Draft:
    """An answer on its way through the rounds."""

    group: RolloutGroup
    prompt: str
    principles: Sequence[Principle]
    """One a round."""
    text: str
    rounds: list[Round] = field(default_factory=list)
    failure: Failure | None = None

    @property
    def number(self) -> int:
        return self.group.request_id - SEED_OFFSET

    def case(self, turn: int) -> Case:
        return Case(prompt=self.prompt, answer=self.text, principle=self.principles[turn])

    def close_round(self, turn: int, critique: Critique, revision: str | None) -> None:
        principle = self.principles[turn]
        self.rounds.append(
            Round(
                principle=principle.id,
                principle_version=principle.version,
                critique=critique.text,
                violated=critique.violated,
                revision=revision,
            )
        )
        self.text = self.text if revision is None else revision


class AnswerReviser:
    """An answer and the principles it meets depend on the job's seed and the prompt's number alone."""

    def __init__(self, bench: Workbench, settings: ConstitutionSettings) -> None:
        """Raises `DataError` or `ConfigError` where constitution or critic are not what they should be."""
        self.path = bench.job_dir / FILE_NAME
        self._bench = bench
        self._settings = settings
        self._constitution = load_constitution(settings.constitution)
        self._critic: Critic = make_critic(settings.critic)
        self._critic.check(self._constitution.principles)
        self._sampling = bench.sampler.sampling(temperature=settings.temperature)
        revising = bench.sampler.sampling(temperature=settings.revision_temperature)
        self._policy = PolicyReviser(bench, revising) if settings.reviser == "policy" else None
        self._num_total = settings.num_prompts or bench.prompts.num_rows
        self._failures = Failures(bench)
        self._figures = RevisionFigures()
        self._paired: set[str] | None = None
        """Prompts whose pair a former driver of the job has written; read when the first ones are to be."""
        self._account = Account(
            bench, task="constitution", path=self.path, num_total=self._num_total, metrics=self.metrics
        )

    @property
    def progress(self) -> tuple[int, int]:
        return self._account.num_done, self._num_total

    async def run(self, stop: asyncio.Event) -> bool:
        """Revise until all is done, which gives True, or until `stop` is set and the block at hand is written."""
        is_finished = False
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self._critic.close)
            file = stack.enter_context(closing(JsonLines(self.path)))
            pairs = stack.enter_context(self._pairs_file())
            done = self._read(file)
            self._account.begin("revising answers by a constitution", num_done=len(done))
            blocks = await stack.enter_async_context(aclosing(self._bench.blocks(self._requests(done))))
            async for groups in blocks:
                revisions = await self._revisions(groups)
                # The pairs first: a row of the other file says that its prompt is done.
                if pairs is not None:
                    self._add_pairs(revisions, pairs)
                self._add(revisions, file)
                self._account.advance(len(groups))
                if stop.is_set():
                    break
            else:
                is_finished = True
        self._account.end()
        return is_finished

    def metrics(self) -> dict[str, float]:
        return self._figures.metrics() | {"constitution/num_invalid": float(self._failures.num_groups)}

    def _pairs_file(self) -> AbstractContextManager[JsonLines | None]:
        return closing(JsonLines(self._bench.job_dir / PAIRS_FILE)) if self._settings.pairs else nullcontext()

    def _read(self, file: JsonLines) -> set[str]:
        """Take up what a former driver of the job has revised: the prompts that are done."""
        rows = list(file.rows())
        for row in rows:
            self._figures.add(row)
        return {row["prompt_id"] for row in rows}

    def _requests(self, done: Collection[str]) -> Iterator[RolloutRequest]:
        for number in range(self._num_total):
            prompt = self._bench.prompts[number]
            if prompt.prompt_id not in done:
                yield self._bench.sampler.request(
                    SEED_OFFSET + number, prompt, num_completions=1, sampling=self._sampling
                )

    async def _revisions(self, groups: Sequence[RolloutGroup]) -> list[Revision]:
        """All rounds of a block; without the answers on which somebody failed."""
        drafts = [self._draft(group) for group in groups]
        for turn in range(self._settings.num_rounds):
            await self._round([draft for draft in drafts if draft.failure is None], turn=turn)
        for draft in drafts:
            self._failures.observe_outcome(draft.group, draft.failure or 1.0, of="critic")
        return [self._revision(draft) for draft in drafts if draft.failure is None]

    def _draft(self, group: RolloutGroup) -> _Draft:
        generator = np.random.default_rng([self._bench.job.seed, group.request_id])
        return _Draft(
            group=group,
            prompt=plain_prompt(self._bench.prompts.row(group.request_id - SEED_OFFSET).prompt),
            principles=self._constitution.draw(self._settings.num_rounds, generator),
            text=group.texts[0],
        )

    async def _round(self, drafts: Sequence[_Draft], *, turn: int) -> None:
        """Hold each draft against its principle of this round, and replace the text of those that break it."""
        critiques = await self._critic.critique([draft.case(turn) for draft in drafts])
        broken: list[tuple[_Draft, Critique]] = []
        for draft, critique in zip(drafts, critiques, strict=True):
            if isinstance(critique, Failure):
                draft.failure = critique
            elif critique.violated:
                broken.append((draft, critique))
            else:
                draft.close_round(turn, critique, None)
        for (draft, critique), text in zip(broken, await self._revised(broken, turn=turn), strict=True):
            if isinstance(text, Failure):
                draft.failure = text
            else:
                draft.close_round(turn, critique, text)

    async def _revised(self, broken: Sequence[tuple[_Draft, Critique]], *, turn: int) -> list[str | Failure]:
        cases = [draft.case(turn) for draft, _ in broken]
        critiques = [critique for _, critique in broken]
        if self._policy is None:
            return await self._critic.revise(cases, critiques)
        numbers = [draft.number for draft, _ in broken]
        return await self._policy.revise(cases, critiques, numbers=numbers, turn=turn)

    def _revision(self, draft: _Draft) -> Revision:
        settings = self._settings
        return Revision(
            prompt_id=draft.group.prompt.prompt_id,
            prompt=self._bench.prompts.row(draft.number).prompt,
            original=draft.group.texts[0],
            rounds=tuple(draft.rounds),
            item=draft.group.prompt.item,
            provenance={
                **self._bench.provenance(draft.group, sampling=self._sampling),
                "constitution": self._constitution.identity,
                "critic": critic_label(settings.critic),
                "reviser": settings.reviser,
            },
        )

    def _add(self, revisions: Sequence[Revision], file: JsonLines) -> None:
        rows = [revision.row() for revision in revisions]
        file.append(rows)
        for row in rows:
            self._figures.add(row)

    def _add_pairs(self, revisions: Sequence[Revision], file: JsonLines) -> None:
        """The revision is preferred to the answer that it was made from."""
        if self._paired is None:
            labelled = ((row["prompt_id"], row.get("provenance", {}).get("labels")) for row in file.rows())
            self._paired = {prompt_id for prompt_id, labels in labelled if labels == LABELS}
        changed = [revision for revision in revisions if revision.final != revision.original]
        file.append(self._pair(revision).columns() for revision in changed if revision.prompt_id not in self._paired)

    def _pair(self, revision: Revision) -> Preference:
        return Preference(
            pair_id=f"{self._bench.job.name}:{revision.prompt_id}:{LABELS}",
            prompt=revision.prompt,
            a=revision.original,
            b=revision.final,
            label="b",
            labeler=critic_label(self._settings.critic),
            kind="rule" if self._settings.critic.type == "rule" else "judge",
            time_s=round(self._bench.clock.time(), 3),
            provenance={**revision.provenance, "labels": LABELS},
            item={"prompt_id": revision.prompt_id},
        )
