"""Who writes a revision: the critic itself, or the policy, asked by the critic's own words."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing

from rlhf_cluster.data.sources import Row
from rlhf_cluster.driver.workbench import Workbench
from rlhf_cluster.errors import DataError
from rlhf_cluster.records import RolloutRequest, Sampling
from rlhf_cluster.rewards.critics.base import Case, Critique
from rlhf_cluster.rewards.critics.wording import revision_request
from rlhf_cluster.rewards.sample import Failure, failure_of

SEED_OFFSET = 4 << 40
ROUND_OFFSET = 1 << 32
"""Between the requests of one round and the next."""


class PolicyReviser:
    """The job's own rollout workers, which go on sampling first answers beside it."""

    def __init__(self, bench: Workbench, sampling: Sampling) -> None:
        self._bench = bench
        self._sampling = sampling

    async def revise(
        self, cases: Sequence[Case], critiques: Sequence[Critique], *, numbers: Sequence[int], turn: int
    ) -> list[str | Failure]:
        """`numbers` are those of the prompts and `turn` that of the round, from 0; they seed the draws."""
        revisions: dict[int, str | Failure] = {}
        requests: list[RolloutRequest] = []
        for case, critique, number in zip(cases, critiques, numbers, strict=True):
            try:
                requests.append(self._request(case, critique, SEED_OFFSET + turn * ROUND_OFFSET + number))
            except DataError as error:  # longer than the model's context
                revisions[number] = failure_of(error)
        stream = self._bench.sampler.stream(requests, quarantine=self._bench.quarantine)
        async with aclosing(stream):
            async for groups in stream:
                revisions |= {group.request_id % ROUND_OFFSET: _written(group.texts[0]) for group in groups}
        lost = Failure(kind="died", message="workers died of the request for the revision")
        return [revisions.get(number, lost) for number in numbers]

    def _request(self, case: Case, critique: Critique, request_id: int) -> RolloutRequest:
        row = Row(number=request_id % ROUND_OFFSET, prompt=revision_request(case, critique))
        prompt = self._bench.prompts.prompt(row, prompt_id=f"revision-{request_id}/0")
        return self._bench.sampler.request(request_id, prompt, num_completions=1, sampling=self._sampling)


def _written(text: str) -> str | Failure:
    return text if text.strip() else Failure(kind="not_a_number", message="the policy wrote nothing as the revision")
