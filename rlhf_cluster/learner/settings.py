"""Settings of the learner group: where it runs, at which precision, what it trains, and with which optimizer."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from rlhf_cluster.models.settings import LoraSettings
from rlhf_cluster.precision import Dtype, Precision, dtype_of
from rlhf_cluster.settings import Resources, Settings


class OptimizerSettings(Settings):
    """AdamW (arXiv:1711.05101), fused, with a learning-rate schedule counted in optimizer steps."""

    lr: float = Field(1e-6, gt=0)
    """Peak learning rate."""
    betas: tuple[float, float] = (0.9, 0.95)
    """Decay of the first and second moment."""
    eps: float = Field(1e-8, gt=0)
    """Added to the denominator."""
    weight_decay: float = Field(0.0, ge=0)
    """Decoupled decay, applied to matrices and not to norms or biases."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """After the warm-up: stay, or fall to zero at the last step."""
    warmup_steps: int = Field(0, ge=0)
    """Steps over which the rate rises from zero."""
    max_grad_norm: float = Field(1.0, gt=0)
    """Gradients are scaled down to this global L2 norm."""


class CriticSettings(Settings):
    """The critic of an algorithm that has one, on the same ranks as the policy."""

    trunk: Literal["own", "shared"] = "own"
    """`own` is a second network, as large as the policy; `shared` reads the policy's hidden states, which costs nothing
    and lets the value loss pull at the policy."""
    model: str | None = None
    """What its own trunk begins from, such as a reward model's directory; None is the policy's model."""
    lr: float | None = Field(None, gt=0)
    """Its peak learning rate; None is the optimizer's."""


class LearnerSettings(Settings):
    """The group of ranks that holds the trained policy."""

    backend: Literal["plain", "ddp"] = "plain"
    """`plain` is one rank; `ddp` replicates the model on every rank (torch DistributedDataParallel)."""
    num_ranks: int = Field(1, ge=1)
    """Ranks in the group; more than one needs `backend = "ddp"`."""
    spare: bool = False
    """Keep a second group warm, model loaded, to take the place of a lost one: twice the memory for a fast recovery."""
    cpus: float = Field(1, ge=0)
    """CPUs that each rank reserves."""
    gpus: float = Field(0, ge=0)
    """GPUs that each rank reserves."""
    resources: Resources = Field(default_factory=dict)
    """Other resources of a Ray cluster that each rank reserves, as in `{fast = 1}`: a node must have them. The
    local runtime passes them over."""
    threads: int = Field(1, ge=1)
    """OpenMP threads of each rank."""
    precision: Precision = "auto"
    """`bf16`: bfloat16 autocast over fp32 weights. `fp32`: everything in fp32. `auto`: bf16 on GPUs and
    on a CPU that has instructions for it, else fp32."""
    train_last_layers: int | None = Field(None, ge=1)
    """Train only the last N decoder layers and the final norm, or with `lora` the adapters in those layers alone; None
    trains everything."""
    lora: LoraSettings | None = None
    """Train low-rank adapters and leave the model as it is: a fraction of the memory, and small checkpoints."""
    packing: Literal["prefix", "padded"] = "prefix"
    """`prefix` computes the shared prompt of a group once; `padded` gives every completion a row of its own."""
    microbatch_tokens: int = Field(2048, ge=16)
    """Most tokens, padding included, in one forward and backward pass."""
    max_row_tokens: int = Field(1024, ge=16)
    """A group longer than this is divided into rows that each repeat the prompt: attention costs the row squared."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: about 30 % more time for much less memory."""
    logit_chunk_rows: int = Field(1024, ge=1)
    """Rows of logits that exist at one time."""
    critic: CriticSettings = CriticSettings()
    """Of an algorithm that has one."""
    optimizer: OptimizerSettings = OptimizerSettings()
    """AdamW, its learning rate and its bounds."""
    collective_timeout_s: float = Field(600.0, gt=0)
    """How long a rank waits for the others inside a collective."""

    @property
    def dtype(self) -> Dtype:
        """Of the arithmetic."""
        return dtype_of(self.precision, gpus=self.gpus)
