"""The peer TRL 1.16 on recorded examples: `SFTTrainer` and `DPOTrainer` on the same texts, from step to step.

`sft` and `dpo` are TRL as it comes, but for gradient checkpointing (off: it costs time) and logging (off).
`sft_padding_free` lays a batch out in one row; TRL supports that with flash attention only, which no CPU has, but
transformers builds the mask that keeps examples apart for other kernels too. `DPOTrainer` 1.16 has no such layout.
`dpo` has the reference scored in every step, `dpo_precomputed` before the first.

Runs in TRL's own virtual environment, which `make .venv-trl/installed` makes:

    .venv-trl/bin/python benchmarks/peer_trl_recorded.py --model DIR --data FILE --variant sft --steps 2
"""

from __future__ import annotations

import tempfile
from typing import Any

from measure import Meter, pin_environment, tree_cpu_s
from ours_recorded import BETAS, measured, rss_mib
from recorded_work import EXAMPLES_PER_STEP, LR, Arguments, parse_arguments

VARIANTS = ("sft", "sft_padding_free", "dpo", "dpo_precomputed")


def settings(arguments: Arguments, *, output_dir: str) -> Any:
    """TRL's defaults but for what would make its step unequal to ours or dearer than it need be."""
    from trl import DPOConfig, SFTConfig

    common: dict[str, Any] = {
        "output_dir": output_dir,
        "use_cpu": True,
        "bf16": arguments.precision == "bf16",
        "gradient_checkpointing": False,
        "max_steps": arguments.num_steps + 1,
        "per_device_train_batch_size": EXAMPLES_PER_STEP[arguments.task],
        "train_sampling_strategy": "sequential",
        "learning_rate": LR[arguments.task],
        "lr_scheduler_type": "constant",
        "adam_beta1": BETAS[0],
        "adam_beta2": BETAS[1],
        "max_grad_norm": 1.0,
        "optim": "adamw_torch_fused",
        "save_strategy": "no",
        "eval_strategy": "no",
        "logging_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "seed": 0,
    }
    if arguments.task == "dpo":
        return DPOConfig(**common, precompute_ref_log_probs=arguments.variant == "dpo_precomputed")
    if arguments.variant == "sft_padding_free":
        return SFTConfig(**common, padding_free=True, max_length=None)
    return SFTConfig(**common)


class Seen:
    """What is seen of a trainer's run."""

    def __init__(self) -> None:
        self.meter = Meter()
        self.losses: list[float] = []
        self.startup_cpu_s = 0.0

    def boundaries(self) -> Any:
        """A callback that tells the meter where steps begin and end."""
        from transformers import TrainerCallback

        seen = self

        class Boundaries(TrainerCallback):
            def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
                if len(seen.meter.steps) == 1:
                    seen.startup_cpu_s = tree_cpu_s()
                seen.meter.begin_step()

            def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
                seen.meter.end_step()

        return Boundaries()

    def keeping(self, trainer: Any) -> Any:
        """The trainer's class, keeping the loss of each step."""
        seen = self

        class Kept(trainer):
            def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
                loss = super().compute_loss(*args, **kwargs)
                seen.losses.append(float(loss.detach()))
                return loss

        return Kept


def main() -> None:
    arguments = parse_arguments(__doc__, variants=VARIANTS)
    pin_environment()
    import torch
    import transformers
    import trl
    from datasets import Dataset

    torch.set_num_threads(1)
    seen = Seen()
    tokenizer = transformers.AutoTokenizer.from_pretrained(arguments.model)
    model = transformers.AutoModelForCausalLM.from_pretrained(arguments.model, dtype=torch.float32)
    loaded_rss_mib = rss_mib()
    with tempfile.TemporaryDirectory() as output_dir:
        trainer = seen.keeping(trl.SFTTrainer if arguments.task == "sft" else trl.DPOTrainer)(
            model=model,
            processing_class=tokenizer,
            args=settings(arguments, output_dir=output_dir),
            train_dataset=Dataset.from_list([each.texts for step in arguments.steps() for each in step]),
            callbacks=[seen.boundaries()],
        )
        trainer.train()
    line = measured(
        f"trl_{arguments.variant}",
        arguments,
        steps=seen.meter.steps[1:],
        startup_cpu_s=seen.startup_cpu_s,
        losses=seen.losses,
        loaded_rss_mib=loaded_rss_mib,
        trl=trl.__version__,
        torch=torch.__version__,
        transformers=transformers.__version__,
    )
    print(line.to_json())


if __name__ == "__main__":
    main()
