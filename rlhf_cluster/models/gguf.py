"""GGUF files (llama.cpp's format, quantised) turned into Hugging Face directories that `transformers` and vLLM load."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlhf_cluster.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def convert(gguf_file: Path, directory: Path) -> None:
    """Unpack the weights and write model and tokenizer into `directory`: bfloat16 safetensors, chat template kept.

    Raises `ModelError` when the package `gguf` is missing or `transformers` cannot read this file.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    where = {"pretrained_model_name_or_path": str(gguf_file.parent), "gguf_file": gguf_file.name}
    try:
        model = AutoModelForCausalLM.from_pretrained(
            **where, dtype=torch.bfloat16, quantization_config=GgufConfig(dequantize=True)
        )
        tokenizer: Any = AutoTokenizer.from_pretrained(**where)
    except ImportError as error:
        raise ModelError(
            f"reading {gguf_file.name} needs the package gguf: pip install 'rlhf-cluster[gguf]'"
        ) from error
    except (OSError, ValueError, KeyError, NotImplementedError) as error:
        raise ModelError(f"transformers cannot read {gguf_file}: {error}") from error
    _forget_quantization(model)
    # A GGUF names no longest text for the tokenizer; without one it would never warn of a text past the context.
    tokenizer.model_max_length = model.config.max_position_embeddings
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)


def _forget_quantization(model: PreTrainedModel) -> None:
    """The weights are dense now; what is left of GGUF would make `save_pretrained` refuse and vLLM look for blocks."""
    for owner, name in ((model.config, "quantization_config"), (model, "hf_quantizer"), (model, "is_quantized")):
        if hasattr(owner, name):
            delattr(owner, name)
