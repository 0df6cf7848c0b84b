"""first tables"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

SEQUENCE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
TABLES = (
    "tokens",
    "uploads",
    "answers",
    "audit",
    "jobs",
    "attempts",
    "pools",
    "commands",
    "metric_keys",
    "metrics",
    "latest_metrics",
    "sample_files",
    "samples",
    "events",
    "checkpoints",
    "logs",
)


def upgrade() -> None:
    _access()
    _jobs()
    _parts_of_jobs()
    _metrics()
    _samples()
    _words()


def downgrade() -> None:
    for table in reversed(TABLES):
        op.drop_table(table)


def _access() -> None:
    op.create_table(
        "tokens",
        sa.Column("token_id", sa.String(40), nullable=False),
        sa.Column("name", sa.String(128), nullable=False),
        sa.Column("secret_sha256", sa.String(64), nullable=False),
        sa.Column("scopes", sa.JSON(), nullable=False),
        sa.Column("created_s", sa.Float(), nullable=False),
        sa.Column("expires_s", sa.Float()),
        sa.Column("last_used_s", sa.Float()),
        sa.Column("revoked_s", sa.Float()),
        sa.Column("parent_id", sa.String(40)),
        sa.PrimaryKeyConstraint("token_id", name="pk_tokens"),
        sa.UniqueConstraint("secret_sha256", name="uq_tokens_secret_sha256"),
    )
    op.create_table(
        "uploads",
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("num_bytes", sa.BigInteger(), nullable=False),
        sa.Column("created_s", sa.Float(), nullable=False),
        sa.Column("created_by", sa.String(128), nullable=False),
        sa.PrimaryKeyConstraint("sha256", name="pk_uploads"),
    )
    op.create_table(
        "answers",
        sa.Column("token_id", sa.String(40), nullable=False),
        sa.Column("key", sa.String(200), nullable=False),
        sa.Column("request_sha256", sa.String(64), nullable=False),
        sa.Column("status", sa.Integer()),
        sa.Column("headers", sa.JSON()),
        sa.Column("body", sa.Text()),
        sa.Column("created_s", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("token_id", "key", name="pk_answers"),
    )
    op.create_index("ix_answers_created_s", "answers", ["created_s"])
    op.create_table(
        "audit",
        sa.Column("audit_id", SEQUENCE, autoincrement=True, nullable=False),
        sa.Column("time_s", sa.Float(), nullable=False),
        sa.Column("who", sa.String(128), nullable=False),
        sa.Column("method", sa.String(8), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("status", sa.Integer(), nullable=False),
        sa.Column("request_id", sa.String(64), nullable=False),
        sa.Column("is_ok", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("audit_id", name="pk_audit"),
    )
    op.create_index("ix_audit_time_s", "audit", ["time_s"])


def _jobs() -> None:
    op.create_table(
        "jobs",
        sa.Column("job_id", sa.String(40), nullable=False),
        sa.Column("name", sa.String(128), nullable=False),
        sa.Column("owner", sa.String(128), nullable=False),
        sa.Column("labels", sa.JSON(), nullable=False),
        sa.Column("notes", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("config", sa.JSON(), nullable=False),
        sa.Column("bundle_sha256", sa.String(64)),
        sa.Column("max_attempts", sa.Integer(), nullable=False),
        sa.Column("wanted", sa.String(16), nullable=False),
        sa.Column("wanted_s", sa.Float(), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("num_steps", sa.Integer(), nullable=False),
        sa.Column("created_s", sa.Float(), nullable=False),
        sa.Column("started_s", sa.Float()),
        sa.Column("ended_s", sa.Float()),
        sa.Column("view", sa.JSON()),
        sa.Column("view_s", sa.Float()),
        sa.Column("num_entries", sa.Integer(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("job_id", name="pk_jobs"),
    )
    op.create_index("ix_jobs_created_s", "jobs", ["created_s"])
    op.create_index("ix_jobs_name", "jobs", ["name"])
    op.create_index("ix_jobs_state", "jobs", ["state"])


def _parts_of_jobs() -> None:
    op.create_table(
        "attempts",
        _job_id(),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("token_sha256", sa.String(64), nullable=False),
        sa.Column("submission_id", sa.String(128), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("outcome", sa.String(16)),
        sa.Column("exit_code", sa.Integer()),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("may_be_retried", sa.Boolean(), nullable=False),
        sa.Column("was_taken_away", sa.Boolean(), nullable=False),
        sa.Column("host", sa.String(256)),
        sa.Column("process_id", sa.Integer()),
        sa.Column("created_s", sa.Float(), nullable=False),
        sa.Column("lease_until_s", sa.Float()),
        sa.Column("ended_s", sa.Float()),
        _of_job("attempts"),
        sa.PrimaryKeyConstraint("job_id", "number", name="pk_attempts"),
        sa.UniqueConstraint("token_sha256", name="uq_attempts_token_sha256"),
    )
    op.create_table(
        "pools",
        _job_id(),
        sa.Column("pool", sa.String(16), nullable=False),
        sa.Column("mode", sa.String(8), nullable=False),
        sa.Column("replicas", sa.Integer(), nullable=False),
        sa.Column("min_replicas", sa.Integer()),
        sa.Column("max_replicas", sa.Integer()),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("observed_generation", sa.Integer(), nullable=False),
        _of_job("pools"),
        sa.PrimaryKeyConstraint("job_id", "pool", name="pk_pools"),
    )
    op.create_table(
        "commands",
        sa.Column("command_id", sa.String(40), nullable=False),
        _job_id(),
        sa.Column("body", sa.JSON(), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("answer", sa.Text(), nullable=False),
        sa.Column("created_by", sa.String(128), nullable=False),
        sa.Column("created_s", sa.Float(), nullable=False),
        sa.Column("expires_s", sa.Float()),
        sa.Column("answered_s", sa.Float()),
        _of_job("commands"),
        sa.PrimaryKeyConstraint("command_id", name="pk_commands"),
    )
    op.create_index("ix_commands_job_id_state", "commands", ["job_id", "state"])


def _metrics() -> None:
    op.create_table(
        "metric_keys",
        sa.Column("key_id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("key", sa.String(200), nullable=False),
        sa.PrimaryKeyConstraint("key_id", name="pk_metric_keys"),
        sa.UniqueConstraint("key", name="uq_metric_keys_key"),
    )
    op.create_table(
        "metrics",
        _job_id(),
        sa.Column("key_id", sa.Integer(), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("time_s", sa.Float(), nullable=False),
        sa.Column("value", sa.Float()),
        _of_job("metrics"),
        sa.ForeignKeyConstraint(["key_id"], ["metric_keys.key_id"], name="fk_metrics_key_id"),
        sa.PrimaryKeyConstraint("job_id", "key_id", "step", name="pk_metrics"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "latest_metrics",
        _job_id(),
        sa.Column("key_id", sa.Integer(), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("time_s", sa.Float(), nullable=False),
        sa.Column("value", sa.Float()),
        _of_job("latest_metrics"),
        sa.ForeignKeyConstraint(["key_id"], ["metric_keys.key_id"], name="fk_latest_metrics_key_id"),
        sa.PrimaryKeyConstraint("job_id", "key_id", name="pk_latest_metrics"),
    )


def _samples() -> None:
    op.create_table(
        "sample_files",
        _job_id(),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("num_rows", sa.Integer(), nullable=False),
        _of_job("sample_files"),
        sa.PrimaryKeyConstraint("job_id", "name", name="pk_sample_files"),
    )
    op.create_table(
        "samples",
        sa.Column("sample_id", SEQUENCE, autoincrement=True, nullable=False),
        _job_id(),
        sa.Column("kind", sa.String(8), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("request_id", sa.BigInteger(), nullable=False),
        sa.Column("prompt_id", sa.String(200), nullable=False),
        sa.Column("prompt", sa.Text(), nullable=False),
        sa.Column("completion", sa.Text(), nullable=False),
        sa.Column("reward", sa.Float()),
        sa.Column("breakdown", sa.JSON(), nullable=False),
        sa.Column("num_tokens", sa.Integer(), nullable=False),
        sa.Column("body", sa.JSON(), nullable=False),
        _of_job("samples"),
        sa.PrimaryKeyConstraint("sample_id", name="pk_samples"),
    )
    op.create_index("ix_samples_job_id_reward", "samples", ["job_id", "reward"])
    op.create_index("ix_samples_job_id_step_sample_id", "samples", ["job_id", "step", "sample_id"])


def _words() -> None:
    op.create_table(
        "events",
        sa.Column("event_id", SEQUENCE, autoincrement=True, nullable=False),
        sa.Column("topic", sa.String(16), nullable=False),
        _job_id(),
        sa.Column("time_s", sa.Float(), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("level", sa.String(8), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("body", sa.JSON(), nullable=False),
        _of_job("events"),
        sa.PrimaryKeyConstraint("event_id", name="pk_events"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_events_job_id_event_id", "events", ["job_id", "event_id"])
    op.create_table(
        "checkpoints",
        _job_id(),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("time_s", sa.Float(), nullable=False),
        _of_job("checkpoints"),
        sa.PrimaryKeyConstraint("job_id", "step", name="pk_checkpoints"),
    )
    op.create_table(
        "logs",
        sa.Column("line_id", SEQUENCE, autoincrement=True, nullable=False),
        _job_id(),
        sa.Column("component", sa.String(64), nullable=False),
        sa.Column("offset", sa.BigInteger(), nullable=False),
        sa.Column("time_s", sa.Float(), nullable=False),
        sa.Column("line", sa.Text(), nullable=False),
        _of_job("logs"),
        sa.PrimaryKeyConstraint("line_id", name="pk_logs"),
        sa.UniqueConstraint("job_id", "component", "offset", name="uq_logs_job_id_component_offset"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_logs_job_id_line_id", "logs", ["job_id", "line_id"])


def _job_id() -> sa.Column[str]:
    return sa.Column("job_id", sa.String(40), nullable=False)


def _of_job(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(["job_id"], ["jobs.job_id"], name=f"fk_{table}_job_id", ondelete="CASCADE")
