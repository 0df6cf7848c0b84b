"""From a directory in Hugging Face format to a network or tokenizer, with one clear message when it is none."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlhf_cluster.errors import ModelError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def load_causal_lm(path: Path, *, dtype: torch.dtype) -> PreTrainedModel:
    """The causal language model at `path`, on the CPU, in eval mode and without dropout. Runs no code from `path`."""
    from transformers import AutoModelForCausalLM

    return _load(AutoModelForCausalLM, path, dtype=dtype, attn_implementation="sdpa").eval()


def load_tokenizer(path: Path) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    return _load(AutoTokenizer, path)


def max_context(path: Path) -> int:
    """`max_position_embeddings` of the model at `path`: the most tokens a sequence may have."""
    from transformers import AutoConfig

    return int(_load(AutoConfig, path).max_position_embeddings)


def _load(kind: Any, path: Path, **options: Any) -> Any:
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        return kind.from_pretrained(path, local_files_only=True, trust_remote_code=False, **options)
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelError(f"{path} could not be loaded as {kind.__name__.removeprefix('Auto')}: {reason}") from error
