"""What flows between the driver and the roles: frozen dataclasses over numpy; no IO, no torch."""

from rlhf_cluster.records.batch import Batch, StepReport
from rlhf_cluster.records.prompt import Prompt
from rlhf_cluster.records.rollout import Invalid, RolloutGroup, RolloutRequest, Sampling
from rlhf_cluster.records.status import WorkerStatus
from rlhf_cluster.records.weights import Adopted, LogitProbe, TensorSpec, WeightDelta, WeightHandle, WeightManifest

__all__ = [
    "Adopted",
    "Batch",
    "Invalid",
    "LogitProbe",
    "Prompt",
    "RolloutGroup",
    "RolloutRequest",
    "Sampling",
    "StepReport",
    "TensorSpec",
    "WeightDelta",
    "WeightHandle",
    "WeightManifest",
    "WorkerStatus",
]
