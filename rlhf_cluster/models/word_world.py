"""The word-world model: a 0.35M-parameter Llama, its word-level tokenizer, and its first teaching, made from a seed.

It is generated instead of shipped: the same recipe gives the same weights, in seconds, without a network.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rlhf_cluster.data.word_world import demonstrations, vocabulary

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

# torch and transformers are imported where they are used: asking whether a cached model is current must stay cheap.

SPECIAL_TOKENS = ("<pad>", "<bos>", "<eos>", "<unk>")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """All that decides the weights. The few steps are on purpose: the model must still have much to learn."""

    seed: int = 0
    hidden_size: int = 128
    num_layers: int = 2
    num_heads: int = 4
    intermediate_size: int = 256
    max_positions: int = 128
    num_steps: int = 100
    batch_size: int = 64
    learning_rate: float = 6e-3
    initializer_range: float = 0.1
    """Wider than Llama's 0.02, which suits thousands of hidden units, not 128."""

    def digest(self) -> str:
        """Changes with any field, with the vocabulary and with how demonstrations are written."""
        parts = [asdict(self), vocabulary(), demonstrations(256, seed=self.seed)]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


UNTAUGHT = Recipe(num_steps=0)
"""A model that knows no demonstration: where supervised fine-tuning begins."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DemonstrationBatch:
    """Right-padded demonstrations: B sequences of T = longest prompt plus answer, end token included."""

    token_ids: np.ndarray
    """int64 [B, T]."""
    prompt_lengths: np.ndarray
    """int64 [B], with the begin token."""
    completion_lengths: np.ndarray
    """int64 [B], with the end token."""


def make(directory: Path, *, recipe: Recipe | None = None) -> None:
    """Build, teach and save model and tokenizer into `directory`, in Hugging Face format, float32."""
    recipe = recipe or Recipe()
    tokenizer, model = build_tokenizer(), build_model(recipe)
    if recipe.num_steps:
        fit(model, demonstration_batches(tokenizer, recipe), recipe=recipe)
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)


def build_tokenizer() -> PreTrainedTokenizerFast:
    """One id a word; a begin token goes in front, unknown words become `<unk>`."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    ids = {word: index for index, word in enumerate((*SPECIAL_TOKENS, *vocabulary()))}
    words = Tokenizer(WordLevel(ids, unk_token="<unk>"))
    words.pre_tokenizer = WhitespaceSplit()
    words.post_processor = TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", ids["<bos>"])])
    return PreTrainedTokenizerFast(
        tokenizer_object=words,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        unk_token="<unk>",
        model_max_length=Recipe().max_positions,
        clean_up_tokenization_spaces=False,
    )


def build_model(recipe: Recipe) -> LlamaForCausalLM:
    """Random weights from `recipe.seed`, on the CPU, float32; the global random state is left as it was."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(SPECIAL_TOKENS) + len(vocabulary()),
        hidden_size=recipe.hidden_size,
        intermediate_size=recipe.intermediate_size,
        num_hidden_layers=recipe.num_layers,
        num_attention_heads=recipe.num_heads,
        num_key_value_heads=recipe.num_heads,
        head_dim=recipe.hidden_size // recipe.num_heads,
        max_position_embeddings=recipe.max_positions,
        initializer_range=recipe.initializer_range,
        tie_word_embeddings=True,
        pad_token_id=SPECIAL_TOKENS.index("<pad>"),
        bos_token_id=SPECIAL_TOKENS.index("<bos>"),
        eos_token_id=SPECIAL_TOKENS.index("<eos>"),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        return LlamaForCausalLM(config)


def demonstration_batches(tokenizer: PreTrainedTokenizerFast, recipe: Recipe) -> Iterator[DemonstrationBatch]:
    """`num_steps` batches of fresh demonstrations, the same for the same recipe."""
    pairs = demonstrations(recipe.num_steps * recipe.batch_size, seed=recipe.seed)
    prompts = tokenizer([prompt for prompt, _ in pairs])["input_ids"]
    answers = tokenizer([f"{answer} <eos>" for _, answer in pairs], add_special_tokens=False)["input_ids"]
    for start in range(0, len(pairs), recipe.batch_size):
        chunk = slice(start, start + recipe.batch_size)
        yield _pad(prompts[chunk], answers[chunk], pad_id=tokenizer.pad_token_id)


def fit(model: LlamaForCausalLM, batches: Iterable[DemonstrationBatch], *, recipe: Recipe) -> float:
    """Cross entropy on the completion tokens, AdamW, learning rate falling linearly to zero, one pass over `batches`.

    Returns the last batch's loss in nats a token.
    """
    import torch

    optimizer = torch.optim.AdamW(
        model.parameters(), lr=recipe.learning_rate, betas=(0.9, 0.95), weight_decay=0.0, fused=True
    )
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, end_factor=0.0, total_iters=recipe.num_steps)
    loss = torch.tensor(float("nan"))
    for batch in batches:
        tokens_BT = torch.from_numpy(batch.token_ids)
        positions_T = torch.arange(tokens_BT.shape[1])
        starts_B1 = torch.from_numpy(batch.prompt_lengths)[:, None]
        ends_B1 = starts_B1 + torch.from_numpy(batch.completion_lengths)[:, None]
        targets_BT = tokens_BT.masked_fill((positions_T < starts_B1) | (positions_T >= ends_B1), -100)
        # Padding is on the right and attention is causal, so no real token sees it and no attention mask is needed.
        logits_BTV = model(tokens_BT[:, :-1], use_cache=False).logits
        loss = torch.nn.functional.cross_entropy(logits_BTV.flatten(0, 1), targets_BT[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    return loss.item()


def _pad(prompts: list[list[int]], answers: list[list[int]], *, pad_id: int) -> DemonstrationBatch:
    sequences = [prompt + answer for prompt, answer in zip(prompts, answers, strict=True)]
    token_ids = np.full((len(sequences), max(map(len, sequences))), pad_id, dtype=np.int64)
    for row, sequence in enumerate(sequences):
        token_ids[row, : len(sequence)] = sequence
    return DemonstrationBatch(
        token_ids=token_ids,
        prompt_lengths=np.array([len(prompt) for prompt in prompts]),
        completion_lengths=np.array([len(answer) for answer in answers]),
    )
