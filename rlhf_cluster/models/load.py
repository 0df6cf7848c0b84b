"""From a directory in Hugging Face format to a network or tokenizer, with one clear message when it is none."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlhf_cluster.errors import ModelError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

ONE_AT_A_TIME = threading.RLock()
"""Held while a network is built: transformers replaces functions of torch meanwhile, for all threads of a process."""


def load_causal_lm(path: Path, *, dtype: torch.dtype) -> PreTrainedModel:
    """The causal language model at `path`, on the CPU, in eval mode and without dropout. Runs no code from `path`."""
    from transformers import AutoModelForCausalLM

    return _load(AutoModelForCausalLM, path, dtype=dtype, attn_implementation="sdpa").eval()


def load_tokenizer(path: Path) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    return _load(AutoTokenizer, path)


def load_reward_model(path: Path, *, dtype: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A sequence classifier with one output, and its tokenizer. `dtype` names torch's; `auto` is the checkpoint's."""
    from transformers import AutoModelForSequenceClassification

    model = _load(AutoModelForSequenceClassification, path, dtype=dtype).eval()
    if model.config.num_labels != 1:
        raise ModelError(f"{path} has {model.config.num_labels} outputs; a reward needs exactly 1 (num_labels = 1)")
    return model, load_tokenizer(path)


def load_trunk(path: Path, *, dtype: torch.dtype) -> PreTrainedModel:
    """The network at `path` without its head, whichever that is: what a critic of its own begins from."""
    from transformers import AutoModel

    return _load(AutoModel, path, dtype=dtype, attn_implementation="sdpa").eval()


def begin_reward_model(path: Path, *, dtype: torch.dtype) -> PreTrainedModel:
    """A sequence classifier with one output to be trained, from a language model (its head then comes from torch's
    random state) or from another reward model. Its padding is a token that no text ends with, where there is one."""
    from transformers import AutoModelForSequenceClassification

    model = _load(AutoModelForSequenceClassification, path, dtype=dtype, num_labels=1, attn_implementation="sdpa")
    if not hasattr(model, "score"):
        raise ModelError(f"{path} is a {model.config.model_type}: a reward model is trained from a decoder")
    config, special = model.config, load_tokenizer(path).all_special_ids
    if config.pad_token_id in (None, config.eos_token_id):
        # Transformers reads the score at the last token that is no padding: it must not pass over an end token.
        config.pad_token_id = next((each for each in special if each != config.eos_token_id), config.eos_token_id)
    return model.eval()


def max_context(path: Path) -> int:
    """`max_position_embeddings` of the model at `path`: the most tokens a sequence may have."""
    from transformers import AutoConfig

    return int(_load(AutoConfig, path).max_position_embeddings)


def _load(kind: Any, path: Path, **options: Any) -> Any:
    from safetensors import SafetensorError
    from transformers.utils import logging

    # Transformers would take any other path for the name of a model on a hub, and ask the network for it.
    if not path.is_dir():
        raise ModelError(f"{path} is no directory: name one with config.json, safetensors weights and a tokenizer")
    logging.disable_progress_bar()
    try:
        with ONE_AT_A_TIME:
            return kind.from_pretrained(path, local_files_only=True, trust_remote_code=False, **options)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(f"{path} could not be loaded as {kind.__name__.removeprefix('Auto')}: {reason}") from error
