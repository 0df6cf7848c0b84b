"""All tables, one after another: what `make bench` runs. About 45 minutes on two quiet cores.

Each workload is one mirrored round (A B C C B A) of every contender; see run.py for the protocol and for longer runs.

    python benchmarks/all.py --trl-python .venv-trl/bin/python
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
ROUNDS = {
    "lite": ("--steps=6",),
    "full": ("--steps=2", "--only", "bare_vllm", "bare_torch", "ours", "trl_hf"),
    "prefix512": ("--steps=1", "--only", "bare_vllm", "bare_torch", "ours", "trl_hf"),
    "ragged": ("--steps=3", "--only", "bare_torch", "torch_autocast", "ours_learner", "ours_learner_padded"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m", help="a name from `rlhf models list`, or a directory")
    parser.add_argument("--trl-python", help="the python of an environment that holds TRL; left out, TRL is too")
    parser.add_argument("--alignment", action="store_true", help="SFT and DPO beside TRL too: half an hour more")
    parser.add_argument("--workloads", nargs="+", choices=ROUNDS, default=list(ROUNDS))
    arguments = parser.parse_args()
    if arguments.alignment and not arguments.trl_python:
        parser.error("--alignment compares with TRL: give --trl-python")
    from rlhf_cluster.models.registry import resolve

    model = str(resolve(arguments.model))
    for workload in arguments.workloads:
        options = [option for option in ROUNDS[workload] if arguments.trl_python or option != "trl_hf"]
        trl = ("--trl-python", arguments.trl_python) if arguments.trl_python else ()
        print(f"\n== {workload}", flush=True)
        run("run.py", "--model", model, "--workload", workload, "--rounds=1", *options, *trl)
    print("\n== weight hand-over", flush=True)
    run("handover.py", "--model", model, "--steps=5")
    print("\n== cold start and memory", flush=True)
    run("cold_start.py", "--model", model)
    if arguments.alignment:
        run("alignment.py", "--model", model, "--trl-python", arguments.trl_python)
    print("\n== driver at scale, on simulated workers", flush=True)
    run("scale.py", "--quick")


def run(script: str, *options: str) -> None:
    """A table that could not be made says so itself; the others still are."""
    done = subprocess.run([sys.executable, str(HERE / script), *options], check=False)
    if done.returncode:
        print(f"{script} ended with {done.returncode}", flush=True)


if __name__ == "__main__":
    main()
