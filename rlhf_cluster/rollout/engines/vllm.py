"""The vLLM rollout engine, in process: settings, generation in columns, verified weight hand-over, logit probe.

The same code drives vLLM's CPU and CUDA builds through public calls only. It opens on random weights: nothing can be
served before a version was adopted, and a tensor that a reload passed over is then far off instead of nearly right.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
from pydantic import Field

from rlhf_cluster.errors import ConfigError
from rlhf_cluster.records import RolloutGroup, RolloutRequest
from rlhf_cluster.records.rollout import UNFINISHED
from rlhf_cluster.rollout.engines.checkpoint import (
    Precision,
    end_of_sequence_ids,
    parameter_shapes,
    resolve_context,
    resolve_dtype,
)
from rlhf_cluster.rollout.engines.request import (
    Completion,
    assemble,
    begun_completions,
    room_for_new_tokens,
    stream_seed,
)
from rlhf_cluster.settings import Settings

if TYPE_CHECKING:
    import torch
    from vllm import LLMEngine, SamplingParams
    from vllm.outputs import CompletionOutput
    from vllm.v1.engine.output_processor import RequestState

    from rlhf_cluster.rollout.engines.vllm_weights import PublishedColumns

PROBE_PRIORITY, ROLLOUT_PRIORITY = 0, 1
"""vLLM runs the lower number first, so a probe never waits for room behind long completions."""
CPU_BATCHED_TOKENS = 2048
"""Prompt and completion tokens that one step computes, at least."""
GIB = 2**30


class VllmEngine(Settings):
    """Generates with vLLM."""

    type: Literal["vllm"] = "vllm"
    """Says which engine this is."""
    dtype: Precision = "auto"
    """Precision of weights and activations; `auto` is the checkpoint's."""
    max_context: int | None = Field(None, ge=2)
    """Most tokens of prompt and completion together; None for what the model allows."""
    max_num_seqs: int = Field(256, ge=1)
    """Completions generated at a time; more wait for room."""
    kv_cache_gib: float | None = Field(None, gt=0)
    """Memory for keys and values. None: 1 GiB on a CPU; on a GPU what `gpu_memory_utilization` leaves."""
    gpu_memory_utilization: float = Field(0.9, gt=0, le=1)
    """Share of a GPU that this worker may use; lower it where the learner lives on the same GPU."""
    enforce_eager: bool | None = None
    """Run without compiled graphs. None: yes on a CPU, no on a GPU."""
    prefix_caching: bool = True
    """Compute the shared prompt of a group once."""

    def environment(self, threads: int) -> dict[str, str]:
        """Must be set before the process imports torch; `open` sets what can be set later as well."""
        return {
            "OMP_NUM_THREADS": str(threads),
            "OMP_WAIT_POLICY": "PASSIVE",
            "HF_HUB_OFFLINE": "1",
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "VLLM_NO_USAGE_STATS": "1",
            # Below this level vLLM warns, at every weight update, of a head and a rotary table that were not loaded.
            "VLLM_LOGGING_LEVEL": "ERROR",
        }

    def open(self, model_path: Path, *, threads: int = 1) -> RunningVllm:
        """Start vLLM. Call from the thread that will drive the engine: thread counts are per calling thread."""
        eos_ids = end_of_sequence_ids(model_path)
        dtype = resolve_dtype(self.dtype, model_path)
        max_context = resolve_context(self.max_context, model_path)
        os.environ.update(self.environment(threads))
        try:
            import torch
            from vllm import EngineArgs, LLMEngine
        except ImportError as error:
            raise ConfigError(
                f'vLLM cannot be imported ({error}): install it, or set rollout.engine.type = "transformers"'
            ) from error
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        arguments = EngineArgs(
            model=str(model_path),
            dtype=cast(Any, dtype),
            max_model_len=max_context,
            **self._engine_arguments(max_context),
        )
        return RunningVllm(
            LLMEngine.from_engine_args(arguments),
            dtype=dtype,
            max_context=max_context,
            eos_ids=eos_ids,
            shapes=parameter_shapes(model_path),
        )

    def _engine_arguments(self, max_context: int) -> dict[str, Any]:
        from vllm.platforms import current_platform

        on_cpu = current_platform.is_cpu()
        kv_cache_gib = 1.0 if self.kv_cache_gib is None and on_cpu else self.kv_cache_gib
        return {
            "load_format": "dummy",
            "skip_tokenizer_init": True,
            # Without this, vLLM would take sampling defaults out of the model's generation_config.json.
            "generation_config": "vllm",
            "logprobs_mode": "processed_logprobs",
            "scheduling_policy": "priority",
            "enforce_eager": on_cpu if self.enforce_eager is None else self.enforce_eager,
            "enable_prefix_caching": self.prefix_caching,
            # The CPU's default of 128 leaves up to 127 tokens of a shared prompt to be computed for every sibling.
            "block_size": 32 if on_cpu else None,
            # vLLM rewinds the random stream of a prompt that it cut in two, which a CPU's generator cannot do.
            "enable_chunked_prefill": not on_cpu,
            "max_num_batched_tokens": max(max_context, CPU_BATCHED_TOKENS) if on_cpu else None,
            "max_num_seqs": self.max_num_seqs,
            "kv_cache_memory_bytes": None if kv_cache_gib is None else int(kv_cache_gib * GIB),
            "gpu_memory_utilization": self.gpu_memory_utilization,
            "disable_log_stats": True,
        }


@dataclass(slots=True, kw_only=True)
class _Group:
    """A request in flight. Each unfinished completion is a request of its own to vLLM."""

    request: RolloutRequest
    completions: list[Completion]
    """[G], without the tokens that vLLM still keeps to itself."""
    running: dict[int, RequestState] = field(default_factory=dict)
    """What vLLM keeps of the completions that it is sampling, by index."""
    num_ended_tokens: int = 0
    """Generated here in completions that have ended."""

    @property
    def num_tokens(self) -> int:
        """Generated here so far."""
        return self.num_ended_tokens + sum(_num_tokens(state) for state in self.running.values())

    def end(self, index: int, output: CompletionOutput, *, finish_reason: str) -> None:
        del self.running[index]
        self.num_ended_tokens += len(output.token_ids)
        self.completions[index] = self.completions[index].then(
            Completion(
                token_ids=output.token_ids,
                logprobs=cast(Any, output.logprobs).logprobs,
                versions=_versions_of_tokens(output),
                finish_reason=finish_reason,
            )
        )


class RunningVllm:
    """The open engine; see `Engine`.

    Log-probabilities are vLLM's `processed_logprobs`: those of the distribution that a token was drawn from, after
    temperature, top-k and top-p.
    """

    def __init__(
        self,
        llm: LLMEngine,
        *,
        dtype: str,
        max_context: int,
        eos_ids: tuple[int, ...],
        shapes: Mapping[str, tuple[int, ...]],
    ) -> None:
        self.max_context = max_context
        self.dtype = dtype
        self._llm: Any = llm
        self._eos_ids = list(eos_ids)
        self._shapes = shapes
        self._groups: dict[int, _Group] = {}
        self._num_past_tokens = 0
        self._num_probes = 0
        self._published: PublishedColumns | None = None

    def expected_shapes(self) -> Mapping[str, tuple[int, ...]]:
        return self._shapes

    def submit(self, request: RolloutRequest) -> None:
        from vllm.inputs import tokens_input

        max_new_tokens = room_for_new_tokens(request, max_context=self.max_context)
        completions = begun_completions(request, max_new_tokens=max_new_tokens)
        group = self._groups[request.request_id] = _Group(request=request, completions=completions)
        for index, begun in enumerate(completions):
            if begun.is_finished:
                continue
            name = self._llm.add_request(
                f"{request.request_id}.{index}",
                tokens_input([*request.prompt.token_ids.tolist(), *map(int, begun.token_ids)]),
                self._parameters(request, index, begun, max_new_tokens=max_new_tokens),
                priority=ROLLOUT_PRIORITY,
            )
            group.running[index] = self._llm.output_processor.request_states[name]

    def _parameters(
        self, request: RolloutRequest, index: int, begun: Completion, *, max_new_tokens: int
    ) -> SamplingParams:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        sampling = request.sampling
        return SamplingParams(
            max_tokens=max_new_tokens - begun.num_tokens,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            seed=stream_seed(request.seed, num_begun=begun.num_tokens) + index,
            ignore_eos=sampling.ignore_eos,
            stop_token_ids=None if sampling.ignore_eos else self._eos_ids,
            logprobs=0,
            flat_logprobs=True,
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )

    def step(self) -> list[RolloutGroup]:
        if self._llm.has_unfinished_requests():
            for output in self._llm.step():
                self._receive(output)
        return [self._take_out(group) for group in list(self._groups.values()) if not group.running]

    def _receive(self, output: Any) -> None:
        """Keep a finished completion until its group is; `output` is vLLM's of one of ours."""
        request_id, index = map(int, output.request_id.split("."))
        completion = output.outputs[0]
        self._groups[request_id].end(index, completion, finish_reason=completion.finish_reason)

    def _take_out(self, group: _Group) -> RolloutGroup:
        del self._groups[group.request.request_id]
        self._num_past_tokens += group.num_tokens
        return assemble(group.request, group.completions)

    def num_in_flight(self) -> int:
        return len(self._groups)

    def tokens_generated(self) -> int:
        return self._num_past_tokens + self.tokens_in_flight()

    def tokens_in_flight(self) -> int:
        return sum(group.num_tokens for group in self._groups.values())

    def abort(self, request_ids: Collection[int]) -> None:
        for group in [self._groups.pop(request_id) for request_id in request_ids if request_id in self._groups]:
            self._num_past_tokens += group.num_tokens
            self._llm.abort_request([state.request_id for state in group.running.values()], internal=True)

    def abort_all(self) -> None:
        self.abort(list(self._groups))

    def hand_over(self) -> list[RolloutGroup]:
        """As `Engine.hand_over`. A token that is sampled but not read yet, at most one of each completion and only
        where vLLM schedules asynchronously (on a GPU), is lost; whoever goes on draws it anew."""
        from vllm.v1.engine import FinishReason

        for group in self._groups.values():
            states = dict(group.running)
            # What vLLM gives out when a request is aborted that somebody listens to; nobody listens in its own process.
            for index, state in states.items():
                output = state.make_request_output([], None, FinishReason.ABORT, None)
                group.end(index, cast(Any, output).outputs[0], finish_reason=UNFINISHED)
            self._llm.abort_request([state.request_id for state in states.values()], internal=True)
        return [self._take_out(group) for group in list(self._groups.values())]

    def names_to_load(self, changed: Collection[str]) -> Collection[str]:
        from rlhf_cluster.rollout.engines import vllm_weights

        return self._llm.apply_model(lambda model: vllm_weights.names_to_load(model, changed, self._shapes))[0]

    def load_weights(self, version: int, tensors: Iterable[tuple[str, torch.Tensor]]) -> None:
        """As `Engine.load_weights`; also raises `FingerprintMismatch` when a packed matrix did not take the weights."""
        from rlhf_cluster.rollout.engines import vllm_weights

        published = self._published = self._published or vllm_weights.PublishedColumns()
        watched = published.watch(tensors, version=version)
        self._llm.collective_rpc("reload_weights", kwargs={"weights_iterator": watched, "is_checkpoint_format": True})
        if any(self._llm.apply_model(lambda model: vllm_weights.feeds_output_head(model, published.loaded))):
            self._llm.apply_model(vllm_weights.repack_output_heads)
        self._llm.apply_model(lambda model: vllm_weights.check_packed(model, published, version=version))
        self._llm.set_weight_version(str(version))
        # Running requests lose their keys and values too: they are computed anew, by the new weights.
        self._llm.reset_prefix_cache(reset_running_requests=True)

    def held_digests(self) -> Mapping[str, str]:
        from rlhf_cluster.rollout.engines import vllm_weights

        return self._llm.apply_model(lambda model: vllm_weights.held_digests(model, self._shapes))[0]

    def probe(self, token_ids: np.ndarray) -> np.ndarray:
        from vllm import SamplingParams
        from vllm.inputs import tokens_input

        name = f"probe-{self._num_probes}"
        self._num_probes += 1
        parameters = SamplingParams(
            max_tokens=1, temperature=0, prompt_logprobs=0, flat_logprobs=True, detokenize=False
        )
        self._llm.add_request(name, tokens_input(token_ids.tolist()), parameters, priority=PROBE_PRIORITY)
        answer = None
        while answer is None:
            # Other requests may finish in the same step, before and after the probe; the next `step` returns them.
            for output in self._llm.step():
                if output.request_id != name:
                    self._receive(output)
                elif output.finished:
                    answer = np.array(output.prompt_logprobs.logprobs, dtype=np.float32)
        return answer

    def close(self) -> None:
        from vllm.distributed import cleanup_dist_env_and_memory

        if self._llm is not None:
            self.abort_all()
            self._llm.engine_core.shutdown()
            self._llm = None
            cleanup_dist_env_and_memory()


def _num_tokens(state: RequestState) -> int:
    return cast(Any, state.detokenizer).num_output_tokens()


def _versions_of_tokens(completion: CompletionOutput) -> np.ndarray:
    """int32 [L] from vLLM's spans, of which there are none before the first token."""
    versions: list[int] = []
    for span in cast(Any, completion.weight_versions):
        versions += [int(span.version)] * (span.end - span.start)
    return np.array(versions, dtype=np.int32)
