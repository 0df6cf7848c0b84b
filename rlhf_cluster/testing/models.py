"""A real model small enough for a unit test: a two-layer Llama with tied embeddings and random weights."""

from __future__ import annotations

from pathlib import Path

VOCAB_SIZE = 64


def save_tiny_model(path: Path, *, seed: int = 0, num_layers: int = 2, tied: bool = True) -> Path:
    """Write it to `path` in Hugging Face format, without a tokenizer; returns `path`."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCAB_SIZE,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=num_layers,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=32,
        max_position_embeddings=256,
        tie_word_embeddings=tied,
        bos_token_id=0,
        eos_token_id=1,
        initializer_range=0.15,
    )
    LlamaForCausalLM(config).save_pretrained(path)
    return path


def save_tiny_tokenizer(path: Path) -> None:
    """Beside it: token n is the word `wn`. From a tokenizer a reward model learns which token pads."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = {f"w{number}": number for number in range(VOCAB_SIZE)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token=f"w{VOCAB_SIZE - 1}"))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="w0", eos_token="w1").save_pretrained(path)
