"""Low-rank adapters inside a model: put there, merged into plain weights, written and read as peft does.

    x ---> W (frozen) -------------> + ---> y          merged: W + scale * B A, under the name that W had
     '---> A (trained) -> B * scale -'

The layers are peft's. Who serves or loads a merged model need not know that there were adapters.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from rlhf_cluster.errors import ConfigError, ModelError
from rlhf_cluster.models.adapter_files import WEIGHTS, base_of

if TYPE_CHECKING:
    from peft import LoraConfig
    from transformers import PreTrainedModel

    from rlhf_cluster.models.settings import LoraSettings

Named = tuple[str, torch.Tensor]
BASE, DOWN, UP = ".base_layer", ".lora_A.default", ".lora_B.default"
"""What peft adds to the names of a matrix that got an adapter, of A and of B."""
PEFT_PREFIX = "base_model.model."
"""Of all names in an adapter file."""


class LearningDropout(nn.Dropout):
    """Drops where a gradient is wanted, and never in a prediction, whatever mode the rest of the model is in."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return nn.functional.dropout(input, self.p, training=torch.is_grad_enabled())


def attach(
    model: PreTrainedModel,
    settings: LoraSettings,
    *,
    base: Path,
    frozen_dtype: torch.dtype,
    last_layers: int | None = None,
    trained_modules: Sequence[str] = (),
) -> None:
    """Give the `model` of the directory `base` adapters, in the last N decoder layers or in all.

    They and `trained_modules` are trained, in 32 bits, and all else is frozen in `frozen_dtype`. A is drawn from
    torch's random state and B is zero: at first the model is what it was. Raises `ConfigError` for modules that it
    lacks.
    """
    import peft

    targets = _targets(model, settings.target_modules, last_layers=last_layers)
    kept = {name for each in (*settings.modules_to_save, *trained_modules) for name in _module_names(model, each)}
    config = peft.LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        use_rslora=settings.rslora,
        target_modules=targets,
        task_type="SEQ_CLS" if hasattr(model, "score") else "CAUSAL_LM",
        base_model_name_or_path=str(base.absolute()),
    )
    peft.inject_adapter_in_model(config, model)
    # In a fixed order, and the modules trained whole without peft's wrapper, which would rename them.
    config.target_modules, config.modules_to_save = sorted(config.target_modules or ()), sorted(kept) or None
    for name, parameter in model.named_parameters():
        is_trained = is_adapter(name) or any(name.startswith(f"{each}.") for each in kept)
        parameter.requires_grad_(is_trained)
        if parameter.is_floating_point():
            parameter.data = parameter.data.to(torch.float32 if is_trained else frozen_dtype)
    for layer in _layers(model):
        # Autocast casts what has to be cast; peft would cast the input up first, only for that.
        layer.cast_input_dtype_enabled = False
        if settings.dropout:
            layer.lora_dropout["default"] = LearningDropout(settings.dropout)


def config_of(model: nn.Module) -> LoraConfig | None:
    """Of the adapters inside `model`; None where there are none."""
    configs: dict[str, LoraConfig] = getattr(model, "peft_config", {})
    return configs.get("default")


def is_adapter(name: str) -> bool:
    """Whether the parameter of this name is an A or a B."""
    return DOWN in name or UP in name


class MergedWeights:
    """The weights of a model as if it never had adapters, under their plain names. Merged in 32 bits, one at a time as
    they are iterated: there is never a second copy of them all."""

    def __init__(self, named: Iterable[Named], *, config: LoraConfig | None) -> None:
        """`named` are the parameters of the model, adapters included; without a config they are what is iterated."""
        weights = dict(named)
        self._adapters = {name: tensor for name, tensor in weights.items() if is_adapter(name)}
        self._plain = [(name, tensor) for name, tensor in weights.items() if not is_adapter(name)]
        self._scale = 1.0 if config is None else config.lora_alpha / (config.r**0.5 if config.use_rslora else config.r)

    @property
    def shapes(self) -> list[torch.Size]:
        """In the order of the iteration."""
        return [_dense_shape(tensor) for _, tensor in self._plain]

    def __iter__(self) -> Iterator[Named]:
        for name, tensor in self._plain:
            down_RI = self._adapters.get(name.replace(BASE, DOWN)) if BASE in name else None
            if down_RI is None:
                yield name.replace(BASE, ""), _dense(tensor)
            else:
                up_OR = self._adapters[name.replace(BASE, UP)]
                yield name.replace(BASE, ""), _merged(_dense(tensor), down_RI, up_OR, scale=self._scale)


@torch.no_grad()
def _merged(weight_OI: torch.Tensor, down_RI: torch.Tensor, up_OR: torch.Tensor, *, scale: float) -> torch.Tensor:
    """float32 [O, I]."""
    weight_OI = weight_OI.to(device=up_OR.device, dtype=torch.float32)
    return torch.addmm(weight_OI, up_OR.float(), down_RI.float(), alpha=scale)


def without_adapters(model: PreTrainedModel) -> PreTrainedModel:
    """A network of the same shape without adapters and without memory for its weights, to be called with merged ones
    (`torch.func.functional_call`); it shares the buffers of `model`, such as the frequencies of its positions."""
    from copy import deepcopy

    from rlhf_cluster.models.load import ONE_AT_A_TIME

    config = deepcopy(model.config)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    with ONE_AT_A_TIME, torch.device("meta"):
        bare: Any = type(model)(config)
    for name, buffer in model.named_buffers():
        owner, _, last = name.replace(BASE, "").rpartition(".")
        bare.get_submodule(owner).register_buffer(last, buffer, persistent=False)
    return bare.eval()


def write_adapter(directory: Path, named: Iterable[Named], *, config: LoraConfig) -> None:
    """Fill the new `directory` as `peft.PeftModel.from_pretrained` reads it: `named` are the trained parameters."""
    from safetensors.torch import save_file

    directory.mkdir()
    tensors = {PEFT_PREFIX + name.replace(".default", ""): tensor.contiguous() for name, tensor in named}
    save_file(tensors, directory / WEIGHTS, metadata={"format": "pt"})
    config.save_pretrained(str(directory))


def merge_from(adapter: Path, model: PreTrainedModel) -> PreTrainedModel:
    """The model with the adapters in the directory `adapter` merged into it, in its dtype. Raises `ModelError`."""
    import peft
    from safetensors import SafetensorError

    try:
        config = peft.PeftConfig.from_pretrained(str(adapter))
        config.task_type = None  # peft would want the head that they were trained under; adapters fit any
        merged: Any = peft.PeftModel.from_pretrained(model, str(adapter), config=config)
        return merged.merge_and_unload().requires_grad_(True)  # peft has frozen it
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(f"the adapters in {adapter} do not fit {base_of(adapter)}: {reason}") from error


def _targets(model: PreTrainedModel, wanted: str | tuple[str, ...], *, last_layers: int | None) -> list[str]:
    """Names of the matrices to adapt, all inside of decoder layers: the head is read as a matrix, not called."""
    trunk: Any = model.base_model
    layers = list(trunk.layers)
    if last_layers is not None and last_layers > len(layers):
        raise ConfigError(
            f"learner.train_last_layers = {last_layers}, but this model has {len(layers)} layers: lower it, or leave "
            "it out to have adapters in all of them"
        )
    inside = {id(module) for layer in layers[-(last_layers or 0) :] for module in layer.modules()}
    linear = [name for name, each in model.named_modules() if isinstance(each, nn.Linear) and id(each) in inside]
    if wanted == "all-linear":
        return linear
    kinds = {name.rpartition(".")[2] for name in linear}
    if unknown := sorted(set(wanted) - kinds):
        raise ConfigError(
            f"learner.lora.target_modules names {unknown[0]!r}, and the matrices of this model's layers are "
            f'{", ".join(sorted(kinds))}: choose of those, or "all-linear"'
        )
    return [name for name in linear if name.rpartition(".")[2] in wanted]


def _module_names(model: PreTrainedModel, wanted: str) -> list[str]:
    """The full names of the modules that are to be trained whole."""
    names = [name for name, _ in model.named_modules() if name == wanted or name.endswith(f".{wanted}")]
    if not names:
        raise ConfigError(f"learner.lora.modules_to_save names {wanted!r}, and this model has no such module")
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    tied = head is not None and getattr(head, "weight", None) is getattr(embedding, "weight", None)
    if tied and any(model.get_submodule(name) in (head, embedding) for name in names):
        raise ConfigError(
            f"learner.lora.modules_to_save names {wanted!r}, whose matrix is both embedding and head of this model: an "
            "adapter file can hold only one of them, so leave it out"
        )
    return names


def _layers(model: nn.Module) -> Iterator[Any]:
    from peft.tuners.lora import LoraLayer

    return (module for module in model.modules() if isinstance(module, LoraLayer))


def _dense(tensor: torch.Tensor) -> torch.Tensor:
    """Itself, or what bitsandbytes keeps in 4 bits as the matrix that its layer multiplies by."""
    state = getattr(tensor, "quant_state", None)
    if state is None:
        return tensor
    from bitsandbytes.functional import dequantize_4bit

    return dequantize_4bit(tensor.data, state)


def _dense_shape(tensor: torch.Tensor) -> torch.Size:
    state = getattr(tensor, "quant_state", None)
    return tensor.shape if state is None else state.shape
