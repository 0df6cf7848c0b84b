"""The job as data: read from TOML or YAML, overridden on the command line, checked once. No torch, ray or vllm."""

from rlhf_cluster.config.job import JobConfig
from rlhf_cluster.config.load import job_schema, load_job

__all__ = ["JobConfig", "job_schema", "load_job"]
