"""Weights inside vLLM: hand them over through its public reload, and read back what the engine really holds.

vLLM fuses linears (q, k and v become one matrix) and on a CPU repacks them for oneDNN, which leaves the parameters
empty. What is still row-major is read back byte by byte. Packed matrices can only be multiplied with, but a one-hot
row times a matrix is a column of it, exactly: sampled columns of every packed matrix are compared bit for bit.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import torch
from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead, VocabParallelEmbedding

from rlhf_cluster.errors import FingerprintMismatch, ManifestMismatch
from rlhf_cluster.weights.flat import tensor_digest

NUM_COLUMNS = 16
"""Of each packed matrix. A row of 8 to 32 costs about as much as one decoding step over the model."""
ROTATION = 8
"""Of the packed matrices that a version left as they were, one in so many is looked at, others for every version."""


@dataclass(slots=True, kw_only=True)
class PublishedColumns:
    """Remembers of everything that was loaded its shape, and a few columns of every matrix."""

    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    columns: dict[str, torch.Tensor] = field(default_factory=dict)
    """[rows, NUM_COLUMNS] by Hugging Face name."""
    versions: dict[str, int] = field(default_factory=dict)
    """Under which each matrix was loaded last; it chose the columns, so that every version looks at others."""
    loaded: set[str] = field(default_factory=set)
    """What was loaded with the newest version."""

    def watch(self, tensors: Iterable[tuple[str, torch.Tensor]], *, version: int) -> Iterator[tuple[str, torch.Tensor]]:
        self.loaded.clear()
        for name, tensor in tensors:
            self.loaded.add(name)
            self.shapes[name] = tuple(tensor.shape)
            if tensor.ndim == 2:
                self.versions[name] = version
                self.columns[name] = tensor[:, chosen_columns(tensor.shape[1], version=version)]
            yield name, tensor


def chosen_columns(width: int, *, version: int) -> torch.Tensor:
    """int64 [NUM_COLUMNS], the columns to look at of every matrix this wide."""
    return torch.from_numpy(np.random.default_rng([version, width]).integers(width, size=NUM_COLUMNS))


def names_to_load(
    model: torch.nn.Module, changed: Collection[str], shapes: Mapping[str, tuple[int, ...]]
) -> frozenset[str]:
    """Every tensor of every module in which one has changed.

    vLLM reloads a module when all its tensors have come, and fills up with whatever is in memory what did not come. A
    module is found by its name; where one name leads nowhere, as in mixtures of experts, everything is loaded.
    """
    fused_into = {
        part: fused for fused, parts in getattr(model, "packed_modules_mapping", {}).items() for part in parts
    }
    modules = {name: _module_name(name, fused_into) for name in shapes}
    if not set(modules.values()) <= {name for name, _ in model.named_modules()}:
        return frozenset(shapes)
    reloaded = {modules[name] for name in changed}
    return frozenset(name for name, module in modules.items() if module in reloaded)


def _module_name(tensor_name: str, fused_into: Mapping[str, str]) -> str:
    parent, _, last = tensor_name.rpartition(".")[0].rpartition(".")
    return ".".join(filter(None, (parent, fused_into.get(last, last))))


def feeds_output_head(model: torch.nn.Module, loaded: Collection[str]) -> bool:
    """Whether a packed output head, or the embedding it is tied to, is among what was loaded."""
    return any(_weight_name(model, name, module) in loaded for name, module in _packed_output_heads(model))


def repack_output_heads(model: torch.nn.Module) -> None:
    """Bring packed output heads up to date with the embedding they are tied to.

    vLLM's layerwise reload replaces the embedding and passes over a tied head; on a CPU that head is a packed copy and
    would go on sampling from the old weights, without any error.
    """
    for _, module in _packed_output_heads(model):
        cast(Any, module.quant_method).process_weights_after_loading(module)


def _packed_output_heads(model: torch.nn.Module) -> list[tuple[str, torch.nn.Module]]:
    return [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, ParallelLMHead) and hasattr(module, "cpu_linear")
    ]


def held_digests(model: torch.nn.Module, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, str]:
    """Digests of all tensors that lie row-major in the engine, under their Hugging Face names."""
    digests = {}
    for name, parameter in model.named_parameters():
        if parameter.numel():
            digests |= {part: tensor_digest(rows.cpu()) for part, rows in _divide(model, name, parameter, shapes)}
    return digests


def check_packed(model: torch.nn.Module, published: PublishedColumns, *, version: int) -> int:
    """Compare the sampled columns of packed matrices; returns how many tensors that covered.

    Every matrix that was loaded with this version, and in turn one in `ROTATION` of the others. Raises
    `FingerprintMismatch`.
    """
    num_checked = 0
    packed = [(name, module) for name, module in model.named_modules() if hasattr(module, "cpu_linear")]
    for number, (name, module) in enumerate(packed):
        weight_name = _weight_name(model, name, module)
        first_part = _published_names(model, weight_name, published.shapes)[0]
        if first_part not in published.loaded and (number + version) % ROTATION:
            continue
        columns = _columns_of(module, version=published.versions[first_part])
        for part, held in _divide(model, weight_name, columns, published.shapes):
            if not torch.equal(held, published.columns[part].to(held.dtype)):
                raise FingerprintMismatch(
                    f"weights version {version}: vLLM's packed {name} does not hold what was published as {part}"
                )
            num_checked += 1
    return num_checked


def _columns_of(module: Any, *, version: int) -> torch.Tensor:
    """[rows, NUM_COLUMNS] of a packed matrix; `module` is one of vLLM's linears or its output head."""
    width = getattr(module, "input_size_per_partition", None) or module.embedding_dim
    dtype = getattr(module, "params_dtype", None) or module.weight.dtype
    one_hot = torch.zeros(NUM_COLUMNS, width, dtype=dtype)
    one_hot[torch.arange(NUM_COLUMNS), chosen_columns(width, version=version)] = 1
    return module.cpu_linear(one_hot, module.weight, None).T


def _weight_name(model: torch.nn.Module, name: str, module: torch.nn.Module) -> str:
    """vLLM's name of a module's weight; that of the embedding when the module is a head tied to it."""
    if isinstance(module, ParallelLMHead):
        for other_name, other in model.named_modules():
            if type(other) is VocabParallelEmbedding and other.weight is module.weight:
                return f"{other_name}.weight"
    return f"{name}.weight"


def _divide(
    model: torch.nn.Module, name: str, held: torch.Tensor, shapes: Mapping[str, tuple[int, ...]]
) -> Iterator[tuple[str, torch.Tensor]]:
    """(Hugging Face name, its rows of `held`) for each tensor that vLLM keeps under `name`."""
    first = 0
    for part in _published_names(model, name, shapes):
        num_rows = shapes[part][0]
        # vLLM pads a vocabulary to a multiple of 64 rows; the padding belongs to nobody.
        yield part, held[first : first + num_rows]
        first += num_rows


def _published_names(model: torch.nn.Module, name: str, shapes: Mapping[str, tuple[int, ...]]) -> Sequence[str]:
    if name in shapes:
        return [name]
    fused_modules: Mapping[str, Sequence[str]] = getattr(model, "packed_modules_mapping", {})
    for fused, parts in fused_modules.items():
        names = [name.replace(f".{fused}.", f".{part}.") for part in parts]
        if names[0] != name and all(part in shapes for part in names):
            return names
    raise ManifestMismatch(
        f"vLLM holds {name}, and no published tensor goes by that name or by a part of it: this architecture's names "
        "cannot be verified. Use the transformers engine for it"
    )
