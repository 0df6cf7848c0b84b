"""A judge behind an OpenAI-compatible endpoint: shown two texts, it is read as far as the first token of its reply."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from rlhf_cluster.data.constitution import Principle
from rlhf_cluster.rewards.endpoint import Endpoint
from rlhf_cluster.rewards.judges.base import Comparison, Judgement, averaged
from rlhf_cluster.rewards.judges.letters import letter_preference
from rlhf_cluster.rewards.judges.settings import EndpointJudgeSettings
from rlhf_cluster.rewards.judges.wording import as_plain_text, question
from rlhf_cluster.rewards.sample import Failure


class EndpointJudge:
    def __init__(self, settings: EndpointJudgeSettings, principles: Sequence[Principle] = ()) -> None:
        """Raises `ConfigError` where the key's environment variable is not set."""
        self._settings = settings
        self._principles = tuple(principles)
        self._endpoint = Endpoint(settings)

    async def start(self) -> None:
        pass

    async def compare(self, comparisons: Sequence[Comparison]) -> list[Judgement]:
        return await asyncio.gather(*map(self._in_both_orders, comparisons))

    async def close(self) -> None:
        await self._endpoint.close()

    async def _in_both_orders(self, comparison: Comparison) -> Judgement:
        in_order, swapped = await asyncio.gather(self._p_first(comparison), self._p_first(comparison.swapped))
        return averaged(in_order, swapped)

    async def _p_first(self, comparison: Comparison) -> float | Failure:
        asked = question(comparison, self._principles)
        if self._settings.api == "completions":
            asked = as_plain_text(asked)
        logprobs = await self._endpoint.first_token(asked, num=self._settings.num_logprobs)
        if isinstance(logprobs, Failure):
            return logprobs
        return letter_preference(logprobs, min_mass=self._settings.min_letter_mass)
