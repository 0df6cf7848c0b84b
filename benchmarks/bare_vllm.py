"""Bare vLLM: what sampling one step's completions costs with nothing around the engine.

Measures CPU-seconds of `LLM.generate` for a workload: in-process engine, bf16, eager, one thread, no detokenization,
every completion to its full length. `--variant logprobs` also takes each sampled token's log-probability, which a
policy-gradient step needs; `--variant tokens` takes token ids alone, the floor. Step 0 is warm-up and dropped.

    python benchmarks/bare_vllm.py --model DIR --workload lite --steps 3 --json
"""

from __future__ import annotations

from typing import Any

from measure import Arguments, Meter, measure_steps, parse_arguments, pin_environment, report
from workloads import prompt_texts


def open_engine(arguments: Arguments) -> Any:
    """The engine: prefix caching on, so a group's prompt is computed once, as ours does."""
    from vllm import LLM

    workload = arguments.workload
    return LLM(
        model=str(arguments.model),
        dtype="bfloat16",
        enforce_eager=True,
        enable_prefix_caching=True,
        # Only whole blocks of a prompt are shared in a group. vLLM's 128 tokens leave the last 128 of 512
        # to every completion, which costs 40 % more; 32 is the smallest block that its CPU attention takes.
        block_size=32,
        max_model_len=workload.prompt_tokens + workload.max_new_tokens,
        max_num_seqs=workload.num_sequences,
        disable_log_stats=True,
        seed=0,
    )


def main() -> None:
    arguments = parse_arguments(__doc__, variants=("logprobs", "tokens"))
    pin_environment()
    import vllm
    from vllm.sampling_params import RequestOutputKind

    engine = open_engine(arguments)
    workload, tokenizer = arguments.workload, engine.get_tokenizer()
    sampling = vllm.SamplingParams(
        n=workload.num_completions,
        temperature=1.0,
        max_tokens=workload.max_new_tokens,
        ignore_eos=True,
        detokenize=False,
        output_kind=RequestOutputKind.FINAL_ONLY,
        logprobs=0 if arguments.variant == "logprobs" else None,
        flat_logprobs=arguments.variant == "logprobs",
    )
    prompts_of_steps = [
        [
            tokenizer.encode(text, add_special_tokens=False)
            for text in prompt_texts(workload, tokenizer=tokenizer, step=step)
        ]
        for step in range(arguments.num_steps + 1)
    ]
    cached_tokens: list[int] = []

    def run_step(step: int, meter: Meter) -> None:
        prompts = [{"prompt_token_ids": token_ids} for token_ids in prompts_of_steps[step]]
        with meter.part("gen"):
            outputs = engine.generate(prompts, sampling, use_tqdm=False)
        lengths = {len(completion.token_ids) for output in outputs for completion in output.outputs}
        assert lengths == {workload.max_new_tokens}, lengths
        cached_tokens.append(sum(output.num_cached_tokens or 0 for output in outputs))

    notes = {"vllm": vllm.__version__, "cached_tokens_of_a_step": cached_tokens}
    report(measure_steps("bare_vllm", arguments, run_step=run_step, notes=notes), as_json=arguments.as_json)


if __name__ == "__main__":
    main()
