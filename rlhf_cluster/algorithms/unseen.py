"""What stands for an algorithm named by import path where its code must not run, such as in the service.

It holds the table as it was written. What it needs, and whether its hyper-parameters are right, is known only where
the job runs.
"""

from __future__ import annotations

from pydantic import ConfigDict, Field

from rlhf_cluster.algorithms.base import Algorithm


class UnseenAlgorithm(Algorithm):
    model_config = ConfigDict(extra="allow")

    type: str = Field(pattern="^[^:]+:[^:]+$")
    """`package.module:Class`."""

    @property
    def needs(self) -> frozenset[str]:
        return frozenset()
