"""SFT and DPO beside TRL's trainers on the same examples: CPU-seconds of a step, peak memory and losses, in one run.

Every run is a fresh process; a comparison is mirrored (A B B A) and refused where TRL's own runs differ by more than
15 % (see protocol.py). In float32 the losses of the first step must agree to 1e-4, or the program ends with an error:
other work was compared. TRL runs in its own environment, which `make .venv-trl/installed` makes.

    python benchmarks/alignment.py --trl-python .venv-trl/bin/python --comparisons sft dpo_precomputed
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from measure import Measurement
from protocol import Row, UnsteadyMachine, compare, mirrored
from recorded_work import padded_tokens, read_steps, write_examples
from run import ALLOCATORS, HERE, RESULTS, run_command

MAX_LOSS_DIFFERENCE = 1e-4
SPARE_STEPS = 2
"""Of data beyond the measured steps: warm-up, of which a job has two."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A trainer of TRL and what is compared with it; all train on the same data."""

    task: str
    peer: str
    others: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return self.peer, *self.others


COMPARISONS = {
    "sft": Comparison(task="sft", peer="trl_sft", others=("ours_sft",)),
    "dpo_precomputed": Comparison(task="dpo", peer="trl_dpo_precomputed", others=("ours_dpo_precomputed",)),
    "dpo": Comparison(task="dpo", peer="trl_dpo", others=("ours_dpo",)),
    "sft_padding_free": Comparison(task="sft", peer="trl_sft_padding_free", others=("ours_sft",)),
    "sft_job": Comparison(task="sft", peer="ours_sft", others=("ours_sft_job",)),
    "dpo_job": Comparison(task="dpo", peer="ours_dpo", others=("ours_dpo_job",)),
}


class UnequalLosses(RuntimeError):
    """A contender trains on something else than TRL does."""


def loss_differences(runs: dict[str, list[Measurement]], comparison: Comparison) -> dict[str, list[float]]:
    """How far each contender's losses are from the peer's, by step from the first; jobs report later steps only."""
    expected = runs[comparison.peer][0].notes["losses"]
    return {
        name: [abs(a - b) for a, b in zip(runs[name][0].notes["losses"], expected, strict=True)]
        for name in comparison.others
        if not name.endswith("_job")
    }


def refuse_unequal(differences: dict[str, list[float]], *, peer: str) -> None:
    """Raises `UnequalLosses` for a first step that is not the peer's."""
    for name, (first, *_) in differences.items():
        if first > MAX_LOSS_DIFFERENCE:
            raise UnequalLosses(
                f"the loss of {name} on the first step is {first:.2g} from that of {peer} (allowed: "
                f"{MAX_LOSS_DIFFERENCE:g} in float32): they do not train on the same tokens, so no speed is reported"
            )


def format_rows(rows: list[Row], runs: dict[str, list[Measurement]], differences: dict[str, list[float]]) -> str:
    """The rows as aligned plain text; the first is the peer's."""
    head = ("contender", "CPU-s/step", "tokens/CPU-s", "speed", "range", "peak over model, MiB", "loss, step by step")
    lines = [head, *(_cells(row, runs[row.contender][0], differences) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def _cells(row: Row, run: Measurement, differences: dict[str, list[float]]) -> tuple[str, ...]:
    low, high = row.efficiency_range
    apart = differences.get(row.contender)
    peak_mib = run.notes["peak_over_model_mib"]
    return (
        row.contender,
        f"{row.cpu_s:.2f}",
        f"{row.total_tokens_per_cpu_s:.1f}",
        f"{row.efficiency:.2f}",
        f"{low:.2f}-{high:.2f}",
        "-" if peak_mib is None else f"{peak_mib:.0f}",
        " ".join(f"{loss:.5f}" for loss in run.notes["losses"]) + (f"  (off by {max(apart):.1g})" if apart else ""),
    )


def run_comparison(
    name: str, *, arguments: argparse.Namespace, model: Path, data: Path
) -> tuple[dict[str, list[Measurement]], str]:
    """All runs of one comparison, and its table or why there is none."""
    comparison = COMPARISONS[name]
    order = list(comparison.names) if arguments.once else mirrored(comparison.names)
    runs: dict[str, list[Measurement]] = {each: [] for each in comparison.names}
    for contender in order:
        owner, _, variant = contender.partition("_")
        script = (
            (arguments.trl_python, "peer_trl_recorded.py") if owner == "trl" else (sys.executable, "ours_recorded.py")
        )
        command = [script[0], str(HERE / script[1]), f"--model={model}", f"--data={data}", f"--variant={variant}"]
        command += [f"--steps={arguments.steps}", f"--precision={arguments.precision}"]
        run, whole_cpu_s = run_command(contender, command, environment=ALLOCATORS[arguments.allocator])
        runs[contender].append(run)
        line = f"{contender}: {run.cpu_s:.2f} CPU-s a step, {whole_cpu_s:.1f} the whole process"
        print(line, f"(load {os.getloadavg()[0]:.1f})", file=sys.stderr, flush=True)
    differences = loss_differences(runs, comparison)
    if arguments.precision == "fp32":
        refuse_unequal(differences, peer=comparison.peer)
    try:
        rows = compare([runs], bare=[comparison.peer])
    except UnsteadyMachine as refusal:
        return runs, f"refused: {refusal}"
    return runs, format_rows(rows, runs, differences)


def parse_command_line() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m", help="a name from `rlhf models list`, or a directory")
    parser.add_argument("--trl-python", required=True, help="the python of an environment that holds TRL")
    parser.add_argument("--comparisons", nargs="+", choices=COMPARISONS, default=list(COMPARISONS))
    parser.add_argument("--steps", type=int, default=2, help="measured steps of a run, after one that is dropped")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32", help="bf16 needs a CPU that has it")
    parser.add_argument("--allocator", choices=ALLOCATORS, default="keep", help="see run.py")
    parser.add_argument("--once", action="store_true", help="A B instead of A B B A: half the time, no check for drift")
    return parser.parse_args()


def main() -> None:
    arguments = parse_command_line()
    from rlhf_cluster.models.load import load_tokenizer
    from rlhf_cluster.models.registry import resolve

    model = Path(resolve(arguments.model))
    document: dict[str, object] = {"at": datetime.now(UTC).isoformat(timespec="seconds"), **vars(arguments)}
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"alignment-{datetime.now(UTC):%Y%m%dT%H%M%S}.json"
    with tempfile.TemporaryDirectory() as directory:
        for name in arguments.comparisons:
            task = COMPARISONS[name].task
            data = Path(directory) / f"{task}.jsonl"
            write_examples(data, task=task, num_steps=arguments.steps + SPARE_STEPS, tokenizer=load_tokenizer(model))
            first = read_steps(data, task=task)[0]
            told = f"{sum(each.num_tokens for each in first)} tokens a step, {padded_tokens(first)} once padded"
            print(f"\n== {name}, {arguments.precision}: {told}", flush=True)
            runs, table = run_comparison(name, arguments=arguments, model=model, data=data)
            print(table, flush=True)
            document[name] = {"table": table, "runs": {each: [asdict(run) for run in of] for each, of in runs.items()}}
            path.write_text(json.dumps(document, indent=1))
    print(f"\nspeed = CPU-s of the first row / this one's; the runs are in {path}")


if __name__ == "__main__":
    main()
