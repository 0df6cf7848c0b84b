"""What a finished job leaves for later stages, by name, and where in its directory that lies."""

from __future__ import annotations

from pathlib import Path

from rlhf_cluster.driver.checkpoints import newest_verified
from rlhf_cluster.pipeline.graph import Reference

FILES = {"pairs": "preferences.jsonl", "revisions": "revisions.jsonl", "evaluation": "evaluation.json"}
CHECKPOINTS = "checkpoints"


def outputs_of(job_dir: Path) -> dict[str, str]:
    """Output -> path within `job_dir`, of those that are there. Reads the newest checkpoint to verify it."""
    found = {name: file for name, file in FILES.items() if (job_dir / file).is_file()}
    model = newest_verified(job_dir / CHECKPOINTS, tell=lambda _: None)
    return ({"model": str(model.relative_to(job_dir))} if model else {}) | found


def likely_place(job_dir: Path, reference: Reference) -> Path:
    """Where it would lie, for checks before the job has run."""
    below = {"model": f"{CHECKPOINTS}/step-000001", "job": "", **FILES}[reference.output]
    return Path(f"{job_dir / below}{reference.rest}")
