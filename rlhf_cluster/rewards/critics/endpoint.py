"""A critic behind an OpenAI-compatible endpoint: a chat model writes the critiques and the revisions."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from rlhf_cluster.data.constitution import Principle
from rlhf_cluster.rewards.critics.base import Case, Critique
from rlhf_cluster.rewards.critics.settings import EndpointCriticSettings
from rlhf_cluster.rewards.critics.wording import critique_request, read_critique, revision_request
from rlhf_cluster.rewards.endpoint import Endpoint
from rlhf_cluster.rewards.sample import Failure


class EndpointCritic:
    def __init__(self, settings: EndpointCriticSettings) -> None:
        """Raises `ConfigError` where the key's environment variable is not set."""
        self._endpoint = Endpoint(settings)

    def check(self, principles: Sequence[Principle]) -> None:
        """It is told every principle in words."""

    async def critique(self, cases: Sequence[Case]) -> list[Critique | Failure]:
        return await asyncio.gather(*map(self._critique, cases))

    async def revise(self, cases: Sequence[Case], critiques: Sequence[Critique]) -> list[str | Failure]:
        return await asyncio.gather(
            *(self._endpoint.write(revision_request(*each)) for each in zip(cases, critiques, strict=True))
        )

    async def close(self) -> None:
        await self._endpoint.close()

    async def _critique(self, case: Case) -> Critique | Failure:
        text = await self._endpoint.write(critique_request(case))
        return text if isinstance(text, Failure) else read_critique(text)
