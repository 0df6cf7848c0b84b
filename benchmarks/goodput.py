"""Goodput: how much of its speed a job keeps while its processes are killed, or stopped, at random by a seed.

    python benchmarks/goodput.py [--steps 200] [--every 10] [--seed 0]

The same job runs without faults, with kill -9 of a random role's process every N seconds, and with one SIGSTOP in
three; each once, with warm spares, one after another. Rollout workers are scripted and sleep for their tokens, so
that it is the supervision that is measured and not how fast two cores import torch; all else is real: Ray actors, the
reward server's processes, the learner with its model, the ledger. Goodput is the fault-free time of
the steps over the time that they took.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from rlhf_cluster.models import registry
from rlhf_cluster.testing.live_job import LiveJob

ROLES = ("rollout worker", "rollout worker", "reward server", "learner")
"""Drawn from; rollout workers are most of a real job too."""
SETTINGS = (
    "runtime=ray",
    "rollout.engine.type=scripted",
    "rollout.engine.vocab_size=64",
    "rollout.engine.token_s=0.05",
    "rollout.engine.spread=0.5",
    "rollout.engine.eos_probability=0.1",
    "rollout.num_workers=4",
    "rollout.max_in_flight=4",
    "rollout.spares=1",
    "reward_server.spares=1",
    "learner.spare=true",
    "train.max_staleness=2",
    "train.prompts_per_step=16",
    "train.completions_per_prompt=4",
    "algorithm.keep_zero_variance=true",
    "checkpoint.every_steps=10",
    "evaluation.num_prompts=1",
    'observers=["journal"]',
    "recovery.unresponsive_s=2",
    "recovery.stall_s=4",
    "recovery.hedge_s=1",
    "recovery.learner_stall_s=20",
    "recovery.max_restarts=1000",
    "recovery.backoff_s=0",
)


def main() -> None:
    arguments = parse()
    home = Path(os.environ.get("RLHF_CLUSTER_HOME") or tempfile.mkdtemp(prefix="rlhf-bench-"))
    os.environ["RLHF_CLUSTER_HOME"] = str(home)
    registry.add("word-world", progress=lambda line: None)
    calm = run(home, arguments, hang_share=0.0, every_s=None)
    rows = [
        ("no faults", calm),
        ("kill -9", run(home, arguments, hang_share=0.0, every_s=arguments.every)),
        ("kill -9, one in three SIGSTOP", run(home, arguments, hang_share=1 / 3, every_s=arguments.every)),
    ]
    print(f"\n{arguments.steps} steps, a fault every {arguments.every:g} s, seed {arguments.seed}, warm spares")
    print(f"{'run':<30}{'seconds':>9}{'goodput':>9}{'faults':>8}  lost and recovered")
    for name, row in rows:
        goodput = calm["seconds"] / row["seconds"]
        faults = ", ".join(f"{count} {what}" for what, count in sorted(row["faults"].items())) or "-"
        recovered = "; ".join(f"learner {split}" for split in row["recoveries"][:3])
        print(f"{name:<30}{row['seconds']:>9.1f}{goodput:>9.1%}{sum(row['faults'].values()):>8}  {faults}  {recovered}")
    print(f"audit clean: {all(row['audit_ok'] for _, row in rows)}")
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(dict(rows), indent=2) + "\n")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--every", type=float, default=10.0, help="seconds between two faults")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", help="file to write the figures to")
    return parser.parse_args()


def run(home: Path, arguments: argparse.Namespace, *, hang_share: float, every_s: float | None) -> dict:
    """Seconds from the first finished step to the last one, and what was hit."""
    draw, faults = random.Random(arguments.seed), Counter()
    runs = Path(tempfile.mkdtemp(prefix="rlhf-bench-"))
    settings = [*SETTINGS, f"train.num_steps={arguments.steps}"]
    with LiveJob("word-world", home=home, runs=runs, settings=settings) as job:
        job.wait_for_step(1)
        hit_s = time.monotonic()
        while job.step() < arguments.steps:
            if every_s is not None and time.monotonic() - hit_s >= every_s:
                hit_s = time.monotonic()
                role = draw.choice(ROLES)
                number = signal.SIGSTOP if draw.random() < hang_share else signal.SIGKILL
                job.signal(role, number)
                faults[f"{role} {signal.Signals(number).name}"] += 1
            time.sleep(0.2)
            if job.process.poll() is not None:
                break
        code, out = job.end()
        assert code == 0, out[-3000:]
        steps = [event["time_s"] for event in job.events("StepDone")]
        # A fault that nobody noticed would make a fine figure.
        noticed = len(job.lost()) + len(job.events("LearnerRecovered"))
        assert noticed >= 0.8 * faults.total(), (noticed, faults)
        print(f"{steps[-1] - steps[0]:.1f} s, {dict(faults)}", file=sys.stderr)
        return {
            "seconds": steps[-1] - steps[0],
            "faults": dict(faults),
            "audit_ok": bool(job.audit()),
            "recoveries": [
                f"respawn {e['respawn_s']:.2f} s, load {e['load_s']:.2f} s, replay {e['replay_s']:.2f} s "
                f"({e['num_replayed']} batches)"
                for e in job.events("LearnerRecovered")
            ],
        }


if __name__ == "__main__":
    main()
