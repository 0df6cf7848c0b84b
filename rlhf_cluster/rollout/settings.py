"""Settings of the rollout workers: how many, where they run, how they sample, and which engine generates.

An engine's own settings live in the engine's file; this one composes them. Nothing here imports torch or vLLM.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, field_validator

from rlhf_cluster.records import Sampling
from rlhf_cluster.rollout.engines.scripted import ScriptedEngine
from rlhf_cluster.rollout.engines.transformers import TransformersEngine
from rlhf_cluster.rollout.engines.vllm import VllmEngine
from rlhf_cluster.settings import Resources, Settings

EngineSettings = Annotated[VllmEngine | TransformersEngine | ScriptedEngine, Field(discriminator="type")]


class RolloutSettings(Settings):
    """The rollout workers of a job; all of them are alike."""

    num_workers: int = Field(1, ge=1)
    """Rollout workers at the start of the job."""
    spares: int = Field(0, ge=0)
    """Workers kept warm besides, engine open and without weights, to take the place of a lost one at once."""
    max_in_flight: int | None = Field(None, ge=1)
    """Prompts that a worker holds at once; None is as many as its engine runs side by side."""
    cpus: float = Field(1, ge=0)
    """CPUs that each worker reserves."""
    gpus: float = Field(0, ge=0)
    """GPUs that each worker reserves."""
    resources: Resources = Field(default_factory=dict)
    """Other resources of a Ray cluster that each worker reserves, as in `{fast = 1}`: a node must have them. The
    local runtime passes them over."""
    threads: int = Field(1, ge=1)
    """OpenMP threads of each worker."""
    max_new_tokens: int = Field(128, ge=1)
    """A completion ends after this many tokens if the policy has not ended it."""
    temperature: float = Field(1.0, gt=0)
    """Logits are divided by it, by the worker and by the learner alike."""
    top_p: float = Field(1.0, gt=0, le=1)
    """Sample from the smallest set of tokens with this much probability. Below 1.0 the recorded log-probabilities are
    renormalised over that set while the learner's are not, so the importance weights carry the difference."""
    top_k: int = Field(0, ge=0)
    """Sample from this many most likely tokens; 0 for all. What is said of `top_p` holds here too."""
    ignore_eos: bool = False
    """Generate `max_new_tokens` whatever the policy says: for benchmarks."""
    engine: EngineSettings = VllmEngine()
    """What generates: `vllm`, `transformers` or `scripted`."""

    @field_validator("engine", mode="before")
    @classmethod
    def _vllm_unless_said(cls, engine: Any) -> Any:
        return {"type": "vllm", **engine} if isinstance(engine, Mapping) else engine

    @property
    def sampling(self) -> Sampling:
        return Sampling(
            max_new_tokens=self.max_new_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=self.top_k,
            ignore_eos=self.ignore_eos,
        )

    @property
    def environment(self) -> dict[str, str]:
        """What the process of a worker must find in its environment when it starts."""
        # On a CPU vLLM compiles one small function of its sampler with g++, which takes longer than it saves and which
        # not every machine has.
        compiler = {} if self.gpus else {"TORCH_COMPILE_DISABLE": "1"}
        return self.engine.environment(self.threads) | compiler
