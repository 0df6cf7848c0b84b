"""Bare torch: what one policy-gradient step costs with nothing around the model.

Measures CPU-seconds of forward, backward, gradient clipping and fused AdamW on the shapes of a workload, padded;
log-probabilities by cross entropy on the completion tokens alone (the head is not applied to prompts).
`--variant autocast` holds fp32 weights and computes in bf16; `--variant pure` holds bf16 weights. The workload
`ragged` pads completions of 12 to 236 tokens to the longest. Step 0 is warm-up and dropped.

    python benchmarks/bare_torch.py --model DIR --workload lite --steps 3 --variant autocast --json
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from measure import Meter, measure_steps, parse_arguments, pin_environment, report
from workloads import Workload

if TYPE_CHECKING:
    import torch


def sample_batch(workload: Workload, *, vocab_size: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Random token ids: `tokens_BT`, `attention_BT` (0 on padding, at the right) and `advantages_B`."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    lengths_B = torch.tensor(workload.completion_lengths * workload.num_prompts) + workload.prompt_tokens
    shape = (workload.num_sequences, int(lengths_B.max()))
    tokens_BT = torch.randint(vocab_size, shape, generator=generator)
    attention_BT = (torch.arange(shape[1]) < lengths_B[:, None]).long()
    return tokens_BT, attention_BT, torch.randn(shape[0], generator=generator)


def completion_logprobs(
    model: Any, *, tokens_BT: torch.Tensor, attention_BT: torch.Tensor | None, prompt_tokens: int
) -> torch.Tensor:
    """Log-probabilities of the completion tokens, [B, T - prompt_tokens]."""
    from torch.nn import functional

    hidden_BTD = model.model(input_ids=tokens_BT, attention_mask=attention_BT, use_cache=False).last_hidden_state
    logits_BRV = model.lm_head(hidden_BTD[:, prompt_tokens - 1 : -1])
    targets_BR = tokens_BT[:, prompt_tokens:]
    losses_N = functional.cross_entropy(logits_BRV.float().flatten(0, 1), targets_BR.flatten(), reduction="none")
    return -losses_N.view_as(targets_BR)


def main() -> None:
    arguments = parse_arguments(__doc__, variants=("autocast", "pure"), learner_only=True)
    pin_environment()
    import torch
    import transformers

    workload, autocast = arguments.workload, arguments.variant == "autocast"
    torch.set_num_threads(1)
    dtype = torch.float32 if autocast else torch.bfloat16
    model = transformers.AutoModelForCausalLM.from_pretrained(arguments.model, dtype=dtype).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, fused=True)

    def precision() -> AbstractContextManager[Any]:
        return torch.autocast("cpu", dtype=torch.bfloat16) if autocast else nullcontext()

    def run_step(step: int, meter: Meter) -> None:
        batch = sample_batch(workload, vocab_size=model.config.vocab_size, seed=step)
        microbatches = [column.chunk(workload.num_microbatches) for column in batch]
        for tokens_BT, attention_BT, advantages_B in zip(*microbatches, strict=True):
            mask_BR = attention_BT[:, workload.prompt_tokens :]
            with meter.part("forward"), precision():
                logprobs_BR = completion_logprobs(
                    model,
                    tokens_BT=tokens_BT,
                    attention_BT=attention_BT if workload.is_ragged else None,
                    prompt_tokens=workload.prompt_tokens,
                )
                loss = -(advantages_B[:, None] * logprobs_BR * mask_BR).sum() / workload.generated_tokens
            with meter.part("backward"):
                loss.backward()
        with meter.part("optimizer"):
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    notes = {"torch": torch.__version__, "transformers": transformers.__version__}
    report(measure_steps("bare_torch", arguments, run_step=run_step, notes=notes), as_json=arguments.as_json)


if __name__ == "__main__":
    main()
