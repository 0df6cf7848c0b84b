"""From a directory in Hugging Face format to a network or tokenizer, with one clear message when it is none.

Where the directory holds low-rank adapters instead of weights, they are merged into the model that they are for.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from rlhf_cluster.errors import ConfigError, ModelError
from rlhf_cluster.models.adapter_files import adapter_of, base_of

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

ONE_AT_A_TIME = threading.RLock()
"""Held while a network is built: transformers replaces functions of torch meanwhile, for all threads of a process."""


def load_causal_lm(path: Path, *, dtype: torch.dtype, quantise: str = "none") -> PreTrainedModel:
    """The causal language model at `path`, on the CPU, in eval mode and without dropout. Runs no code from `path`.

    Where `quantise` is `nf4`, on the GPU, the matrices of its layers in 4 bits.
    """
    from transformers import AutoModelForCausalLM

    return _load_model(AutoModelForCausalLM, path, dtype=dtype, quantise=quantise).eval()


def load_tokenizer(path: Path) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    return _load(AutoTokenizer, path)


def load_reward_model(path: Path, *, dtype: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A sequence classifier with one output, and its tokenizer. `dtype` names torch's; `auto` is the checkpoint's."""
    from transformers import AutoModelForSequenceClassification

    model = _load_model(AutoModelForSequenceClassification, path, dtype=dtype).eval()
    if model.config.num_labels != 1:
        raise ModelError(f"{path} has {model.config.num_labels} outputs; a reward needs exactly 1 (num_labels = 1)")
    return model, load_tokenizer(path)


def load_trunk(path: Path, *, dtype: torch.dtype, quantise: str = "none") -> PreTrainedModel:
    """The network at `path` without its head, whichever that is: what a critic of its own begins from."""
    from transformers import AutoModel, AutoModelForSequenceClassification

    if adapter_of(path) is None:
        return _load_model(AutoModel, path, dtype=dtype, quantise=quantise).eval()
    # Adapters are named as in a model with a head; every decoder has this one.
    return _load_model(AutoModelForSequenceClassification, path, dtype=dtype, quantise=quantise).eval().base_model


def begin_reward_model(path: Path, *, dtype: torch.dtype, quantise: str = "none") -> PreTrainedModel:
    """A sequence classifier with one output to be trained, from a language model (its head then comes from torch's
    random state) or from another reward model. Its padding is a token that no text ends with, where there is one."""
    from transformers import AutoModelForSequenceClassification

    model = _load_model(
        AutoModelForSequenceClassification, path, dtype=dtype, quantise=quantise, config_options={"num_labels": 1}
    )
    if not hasattr(model, "score"):
        raise ModelError(f"{path} is a {model.config.model_type}: a reward model is trained from a decoder")
    config, special = model.config, load_tokenizer(path).all_special_ids
    config.architectures = [type(model).__name__]  # the language model's would stay there
    if config.pad_token_id in (None, config.eos_token_id):
        # Transformers reads the score at the last token that is no padding: it must not pass over an end token.
        config.pad_token_id = next((each for each in special if each != config.eos_token_id), config.eos_token_id)
    return model.eval()


def load_as_trained(path: Path, *, weights: Path) -> PreTrainedModel:
    """What `weights` holds, a language model or a classifier as the config at `path` says, in the dtype it names."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

    named = (_load(AutoConfig, path).architectures or [""])[0]
    kind = AutoModelForSequenceClassification if named.endswith("SequenceClassification") else AutoModelForCausalLM
    return _load_model(kind, weights, dtype="auto").eval()


def max_context(path: Path) -> int:
    """`max_position_embeddings` of the model at `path`: the most tokens a sequence may have."""
    from transformers import AutoConfig

    return int(_load(AutoConfig, path).max_position_embeddings)


def _load_model(
    kind: Any,
    path: Path,
    *,
    dtype: torch.dtype | str,
    quantise: str = "none",
    config_options: Mapping[str, Any] = MappingProxyType({}),
) -> Any:
    adapter = adapter_of(path)
    if adapter is None:
        more = {} if quantise == "none" else _in_4_bits(dtype)
        return _load(kind, path, dtype=dtype, attn_implementation="sdpa", **config_options, **more)
    if quantise != "none":
        raise ModelError(f"{path} holds adapters alone, which 4 bits cannot take up: merge it first, `rlhf export`")
    return _load_adapted(kind, path, adapter, dtype=dtype, config_options=config_options)


def _load_adapted(
    kind: Any, path: Path, adapter: Path, *, dtype: torch.dtype | str, config_options: Mapping[str, Any]
) -> Any:
    """Merged in 32 bits and rounded once: the same bytes as those of a merged export."""
    import torch
    from transformers import AutoConfig

    from rlhf_cluster.models.lora import merge_from

    base = base_of(adapter)
    config = _load(AutoConfig, path if (path / "config.json").is_file() else base, **config_options)
    wanted = (config.dtype or torch.float32) if dtype == "auto" else dtype
    model = _load_base(kind, base, config=config)
    return merge_from(adapter, model).to(getattr(torch, wanted) if isinstance(wanted, str) else wanted)


def _load_base(kind: Any, base: Path, *, config: Any) -> Any:
    """In float32. Adapters may be for a model that is adapters on another."""
    import torch

    below = adapter_of(base)
    if below is None:
        return _load(kind, base, dtype=torch.float32, attn_implementation="sdpa", config=config)
    from rlhf_cluster.models.lora import merge_from

    return merge_from(below, _load_base(kind, base_of(below), config=config))


def _in_4_bits(dtype: torch.dtype | str) -> dict[str, Any]:
    """Options of `from_pretrained`. Raises `ConfigError` where it cannot be done."""
    import torch

    if not torch.cuda.is_available() or find_spec("bitsandbytes") is None:
        lacking = "bitsandbytes is not installed" if torch.cuda.is_available() else "this learner has no GPU"
        raise ConfigError(
            f'learner.lora.quantise = "nf4" needs a GPU and bitsandbytes, and {lacking}: set it to "none", or give '
            "learner.gpus and `pip install bitsandbytes` on the machines of the learner"
        )
    from transformers import BitsAndBytesConfig

    return {
        "quantization_config": BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        ),
        "device_map": {"": torch.cuda.current_device()},
    }


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
