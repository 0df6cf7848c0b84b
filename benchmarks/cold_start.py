"""From the command to the end of the first optimizer step, split; and the memory of every role.

Runs `rlhf run` as a user does, one step of the positive-reviews recipe on Ray without a held-out evaluation, and reads
the split out of the job's journal.

    python benchmarks/cold_start.py --model DIR
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="directory of a Hugging Face checkpoint")
    model = parser.parse_args().model
    with tempfile.TemporaryDirectory() as runs:
        overrides = (f"model={model}", "train.num_steps=1", "evaluation.num_prompts=1", f"output_dir={runs}")
        started = time.time()
        subprocess.run(
            [sys.executable, "-m", "rlhf_cluster.cli", "run", "positive-reviews", *overrides],
            check=True,
            stdout=subprocess.DEVNULL,
            timeout=600,
            env=os.environ,
        )
        ended = time.time()
        [journal] = Path(runs).glob("*/journal.jsonl")
        events = [json.loads(line) for line in journal.read_text().splitlines()]
    print(json.dumps(split(events, started_s=started, ended_s=ended), indent=2))


def split(events: list[dict], *, started_s: float, ended_s: float) -> dict[str, dict[str, float]]:
    """Wall seconds between the landmarks of a job, and GiB by role."""
    phases: dict[str, float] = {}
    for event in events:
        if event["event"] == "Phase":
            phases.setdefault(event["name"], event["time_s"])
    step = next(event for event in events if event["event"] == "StepDone")
    marks = {
        "command to job start": next(e["time_s"] for e in events if e["event"] == "JobStarted"),
        "prompts, Ray and roles": phases["handing the weights to the rollout workers"],
        "first weights adopted": phases["evaluating"],
        "evaluation of one prompt and the first step": step["time_s"],
        "last evaluation, checkpoint and end": ended_s,
    }
    times = [started_s, *marks.values()]
    seconds = {name: round(after - before, 2) for name, before, after in zip(marks, times[:-1], times[1:], strict=True)}
    memory = {name: round(value, 2) for name, value in step["metrics"].items() if name.endswith("rss_gib")}
    return {"wall_s": seconds, "memory_gib": memory}


if __name__ == "__main__":
    main()
