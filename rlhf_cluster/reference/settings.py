"""Settings of the reference scorers; they are started only when the algorithm needs the reference."""

from __future__ import annotations

from pydantic import Field

from rlhf_cluster.precision import Dtype, Precision, dtype_of
from rlhf_cluster.settings import Resources, Settings


class ReferenceSettings(Settings):
    """The frozen policy that a KL term compares with."""

    model: str | None = None
    """Name or path; None is the model that the job starts from."""
    num_workers: int = Field(1, ge=1)
    """Scorers, each with a copy of the model."""
    spares: int = Field(0, ge=0)
    """Scorers kept warm besides, to take the place of a lost one at once."""
    cpus: float = Field(1, ge=0)
    """CPUs that each scorer reserves."""
    gpus: float = Field(0, ge=0)
    """GPUs that each scorer reserves."""
    resources: Resources = Field(default_factory=dict)
    """Other resources of a Ray cluster that each scorer reserves, as in `{fast = 1}`: a node must have them. The
    local runtime passes them over."""
    threads: int = Field(1, ge=1)
    """OpenMP threads of each scorer."""
    precision: Precision = "auto"
    """Dtype of the weights and of the arithmetic; `auto`: bf16 on GPUs and on a CPU that has
    instructions for it, else fp32."""
    microbatch_tokens: int = Field(4096, ge=16)
    """Most tokens, padding included, in one forward pass."""

    @property
    def dtype(self) -> Dtype:
        return dtype_of(self.precision, gpus=self.gpus)
