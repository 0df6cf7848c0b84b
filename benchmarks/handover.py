"""What it costs to hand a weight version from the learner to a vLLM worker, against one plain copy of its bytes.

Both sides live in this process and share the buffer, as learner and worker on one node share the object store's pages.
CPU-seconds by part, median over the versions: flatten (cast and digest), probe (the learner's), verify, load (vLLM's
reload, head repacking and the check of packed matrices), prove (digests read back, the engine's probe).

    python benchmarks/handover.py --model DIR --steps 5
"""

from __future__ import annotations

import numpy as np
from measure import Arguments, Meter, measure_steps, parse_arguments, pin_environment, report


def run(arguments: Arguments) -> None:
    import torch

    from rlhf_cluster.learner.rank import LearnerRank
    from rlhf_cluster.learner.settings import LearnerSettings
    from rlhf_cluster.learner.spec import LearnerSpec
    from rlhf_cluster.rollout import proof
    from rlhf_cluster.rollout.engines.vllm import VllmEngine
    from rlhf_cluster.weights.flat import flatten, verify
    from rlhf_cluster.weights.memory import MemoryTransport

    spec = LearnerSpec(
        settings=LearnerSettings(),
        model_path=arguments.model,
        temperature=1.0,
        num_steps=1,
        seed=0,
        serving_dtype="bfloat16",
        probe_token_ids=np.arange(100, 116, dtype=np.int32),
        probe_tolerance=1.0,
    )
    learner = LearnerRank(spec, rank=0, num_ranks=1, transport=MemoryTransport())
    engine = VllmEngine(dtype="bfloat16").open(arguments.model)

    def hand_over(step: int, meter: Meter) -> None:
        learner.version = step
        with meter.part("flatten"):
            flatten(learner.backend.named_weights(), version=step, dtype=torch.bfloat16)
        with meter.part("publish"):
            handle = learner.publish()
        assert handle is not None
        with meter.part("copy"):
            handle.location.copy()
        with meter.part("verify"):
            verify(handle.manifest, handle.location)
        with meter.part("load_and_prove"):
            proof.load_and_prove(engine, handle, handle.location)

    measurement = measure_steps("handover", arguments, run_step=hand_over, notes={})
    report(measurement, as_json=arguments.as_json)
    parts = measurement.parts
    total = parts["publish"] + parts["verify"] + parts["load_and_prove"]
    megabytes = learner.publish().manifest.num_bytes / 2**20  # type: ignore[union-attr]
    print(f"hand-over {total:.2f} CPU-s for {megabytes:.0f} MiB = {total / parts['copy']:.0f} x one plain copy")


def main() -> None:
    arguments = parse_arguments(__doc__, variants=("memory",))
    pin_environment()
    run(arguments)


if __name__ == "__main__":
    main()
