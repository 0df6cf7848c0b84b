"""Settings of what is trained inside a model: low-rank adapters."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from rlhf_cluster.settings import Settings


class LoraSettings(Settings):
    """Low-rank adapters (arXiv:2106.09685): the model stays as it is, and beside its matrices W products B A of two
    narrow ones are trained. Completions are sampled, and models exported, with W + scale B A."""

    rank: int = Field(16, ge=1)
    """Rows of A and columns of B: how much an adapter can say."""
    alpha: int = Field(32, ge=1)
    """The scale is `alpha / rank`."""
    rslora: bool = False
    """The scale is `alpha / sqrt(rank)` instead (arXiv:2312.03732), which suits ranks of 64 and more."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Of an adapter's input, while it learns. Off by default: the probabilities that a loss compares with those of the
    sampling or of the reference would be of another, noisy policy."""
    target_modules: Literal["all-linear"] | tuple[str, ...] = "all-linear"
    """Which matrices get an adapter: all those of the decoder layers, or those with these names, as in
    `["q_proj", "v_proj"]`."""
    modules_to_save: tuple[str, ...] = ()
    """Modules that are trained whole besides, and saved with the adapters, such as `norm`; the `score` head of a reward
    model always is one."""
    quantise: Literal["none", "nf4"] = "none"
    """`nf4` keeps the frozen matrices in 4 bits (QLoRA, arXiv:2305.14314); needs a GPU and bitsandbytes."""
    export: Literal["merged", "adapter"] = "merged"
    """What the last checkpoint of a job holds besides the adapters: the merged model, which everything loads, or
    nothing. Earlier checkpoints hold the adapters alone."""
