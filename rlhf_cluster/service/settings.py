"""How a service is set up: where it listens, what it remembers where, which cluster its jobs run on."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator


class ServiceSettings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    data_dir: Path
    """Database, uploads and, unless `jobs_dir` says otherwise, the directories of jobs."""
    database: str | None = None
    """`sqlite:///PATH` or `postgresql://USER@HOST/NAME`; left out, a file in `data_dir`."""
    jobs_dir: Path | None = None
    """Seen by every node of the cluster that may run a driver."""
    host: str = "127.0.0.1"
    port: int = Field(8420, ge=0, le=65535)
    root_path: str = ""
    """Where a proxy has put it, such as `/rlhf`."""
    public_url: str | None = None
    """By which the drivers of jobs reach it; left out, host and port."""
    allowed_hosts: tuple[str, ...] = ()
    """Host names, beside its own, under which a browser may ask: anything else is a rebound name."""
    auth: bool = True
    ray_jobs_url: str | None = None
    """Of Ray's dashboard, such as `http://127.0.0.1:8265`; left out, jobs stay queued."""
    ray_token: str | None = Field(None, repr=False)
    driver_cpus: float = Field(0.0, ge=0)
    """That a driver reserves. With 0 Ray runs all drivers on its head, with more on any node that has so many."""
    lease_s: float = Field(45.0, gt=0)
    launch_s: float = Field(600.0, gt=0)
    cancel_s: float = Field(120.0, gt=0)
    reconcile_every_s: float = Field(1.0, gt=0)
    max_body_bytes: int = Field(16 * 2**20, gt=0)
    """Of a request that is no file; a job's relay sends a good part of a megabyte at once."""
    max_upload_bytes: int = Field(256 * 2**20, gt=0)
    max_streams: int = Field(100, gt=0)
    """Event streams that one token may have open at once."""
    keep_alive_s: float = Field(15.0, gt=0)
    """How often a stream with nothing to tell gives a sign of life: proxies cut off what is silent."""
    open_metrics: bool = False
    """Whether `/metrics` is for everybody; left out, a token with the scope read is needed."""
    samples_per_step: int = Field(256, ge=0)
    """Completions of a step that are kept; the job directory has them all."""
    label_lease_s: float = Field(900.0, gt=0)
    """So long a pair is kept for whoever was shown it; then others may be given its slot."""
    keep_events: int = Field(200_000, gt=0)
    """The newest of all jobs together, about 1 kB each; metrics and checkpoints are kept by themselves."""
    keep_answers_s: float = Field(24 * 3600.0, gt=0)
    """To requests with an `Idempotency-Key`: so long the same request is not done again."""
    keep_audit_s: float = Field(365 * 24 * 3600.0, gt=0)
    keep_expired_tokens_s: float = Field(30 * 24 * 3600.0, gt=0)
    """Of sessions and other tokens that expired or were revoked, to tell who had them."""
    tidy_every_s: float = Field(60.0, gt=0)

    @model_validator(mode="after")
    def _open_only_with_a_lock(self) -> ServiceSettings:
        if not self.auth and not _is_loopback(self.host):
            raise ValueError(
                f"host = {self.host!r} with auth = false would let anybody who reaches it run code on the cluster: "
                'leave auth on, or bind host = "127.0.0.1"'
            )
        return self

    @property
    def database_url(self) -> str:
        return self.database or f"sqlite:///{self.data_dir / 'service.db'}"

    @property
    def job_dirs(self) -> Path:
        return self.jobs_dir or self.data_dir / "jobs"

    @property
    def url(self) -> str:
        return self.public_url or f"http://{self.host}:{self.port}{self.root_path}"

    def shown(self) -> dict[str, Any]:
        """For logs: no secrets."""
        return self.model_dump(mode="json", exclude={"ray_token", "database"})


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
