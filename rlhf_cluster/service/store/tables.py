"""All tables, in the order in which a job meets them. Times are Unix seconds, ids are sortable by time.

SQLite and PostgreSQL are the same to everything above; what only one of them can do is not used.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    Table,
    UniqueConstraint,
)

from rlhf_cluster.service.store.columns import Json, Words

# Named constraints, so that a migration can change them on both databases.
metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

SEQUENCE = BigInteger().with_variant(Integer, "sqlite")
"""SQLite numbers only a plain INTEGER key by itself."""


def _job_id(*, primary_key: bool = False) -> Column[str]:
    job = ForeignKey("jobs.job_id", ondelete="CASCADE")
    return Column("job_id", Words(40), job, primary_key=primary_key, nullable=False)


tokens = Table(
    "tokens",
    metadata,
    Column("token_id", Words(40), primary_key=True),
    Column("name", Words(128), nullable=False),
    Column("secret_sha256", Words(64), nullable=False, unique=True),
    Column("scopes", Json, nullable=False),
    Column("created_s", Float, nullable=False),
    Column("expires_s", Float),
    Column("last_used_s", Float),
    Column("revoked_s", Float),
    Column("parent_id", Words(40)),  # of a session or a login: the token by which it was opened
)

jobs = Table(
    "jobs",
    metadata,
    Column("job_id", Words(40), primary_key=True),
    Column("name", Words(128), nullable=False, index=True),
    Column("owner", Words(128), nullable=False),
    Column("labels", Json, nullable=False),
    Column("notes", Words(), nullable=False, default=""),
    Column("source", Words(), nullable=False),  # the job file as it was submitted
    Column("config", Json, nullable=False),  # with all defaults filled in
    Column("bundle_sha256", Words(64)),
    Column("max_attempts", Integer, nullable=False),
    Column("wanted", Words(16), nullable=False),  # run, cancel or kill: what people want
    Column("wanted_s", Float, nullable=False),  # since when
    Column("state", Words(16), nullable=False, index=True),  # what is
    Column("message", Words(), nullable=False, default=""),
    Column("step", Integer, nullable=False, default=0),
    Column("num_steps", Integer, nullable=False),
    Column("created_s", Float, nullable=False, index=True),
    Column("started_s", Float),
    Column("ended_s", Float),
    Column("view", Json),  # the newest `JobView` of its driver
    Column("view_s", Float),
    Column("num_entries", Integer, nullable=False, default=0),  # of its journal that were taken in
    Column("version", Integer, nullable=False, default=1),  # rises with every change that people make
)

attempts = Table(
    "attempts",
    metadata,
    _job_id(primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("token_sha256", Words(64), nullable=False, unique=True),
    Column("submission_id", Words(128), nullable=False),
    Column("state", Words(16), nullable=False),  # created, submitted, running, ended or lost
    Column("outcome", Words(16)),  # of `JobEnded`, as the driver or the process that watched it said
    Column("exit_code", Integer),
    Column("message", Words(), nullable=False, default=""),
    Column("may_be_retried", Boolean, nullable=False, default=True),  # False where the job itself is at fault
    Column("was_taken_away", Boolean, nullable=False, default=False),  # its cluster went away under it
    Column("host", Words(256)),
    Column("process_id", Integer),
    Column("created_s", Float, nullable=False),
    Column("lease_until_s", Float),
    Column("ended_s", Float),
)

pools = Table(
    "pools",
    metadata,
    _job_id(primary_key=True),
    Column("pool", Words(16), primary_key=True),
    Column("mode", Words(8), nullable=False),  # manual or auto
    Column("replicas", Integer, nullable=False),
    Column("min_replicas", Integer),
    Column("max_replicas", Integer),
    Column("generation", Integer, nullable=False),  # of what is wanted
    Column("observed_generation", Integer, nullable=False),  # of what the driver has obeyed
)

commands = Table(
    "commands",
    metadata,
    Column("command_id", Words(40), primary_key=True),
    _job_id(),
    Column("body", Json, nullable=False),  # as `driver/mailbox.py` writes it
    Column("state", Words(16), nullable=False),  # pending, delivered, done, refused or expired
    Column("answer", Words(), nullable=False, default=""),
    Column("created_by", Words(128), nullable=False),
    Column("created_s", Float, nullable=False),
    Column("expires_s", Float),
    Column("answered_s", Float),
    Index(None, "job_id", "state"),
)

events = Table(
    "events",
    metadata,
    Column("event_id", SEQUENCE, primary_key=True, autoincrement=True),
    Column("topic", Words(16), nullable=False),  # jobs, metrics, workers, logs: what a page subscribes to
    _job_id(),
    Column("time_s", Float, nullable=False),
    Column("step", Integer, nullable=False),
    Column("kind", Words(32), nullable=False),  # a class of `records/events.py`, or one of the service's own
    Column("level", Words(8), nullable=False, default="info"),
    Column("text", Words(), nullable=False, default=""),
    Column("body", Json, nullable=False),
    Index(None, "job_id", "event_id"),
    sqlite_autoincrement=True,  # an id is never used again, also after old events were removed
)

metric_keys = Table(
    "metric_keys",
    metadata,
    Column("key_id", Integer, primary_key=True, autoincrement=True),
    Column("key", Words(200), nullable=False, unique=True),
)

metrics = Table(
    "metrics",
    metadata,
    _job_id(primary_key=True),
    Column("key_id", Integer, ForeignKey("metric_keys.key_id"), primary_key=True),
    Column("step", Integer, primary_key=True),
    Column("time_s", Float, nullable=False),
    Column("value", Float),  # NULL where it was not finite
    sqlite_with_rowid=False,
)

latest_metrics = Table(
    "latest_metrics",
    metadata,
    _job_id(primary_key=True),
    Column("key_id", Integer, ForeignKey("metric_keys.key_id"), primary_key=True),
    Column("step", Integer, nullable=False),
    Column("time_s", Float, nullable=False),
    Column("value", Float),
)

sample_files = Table(
    "sample_files",
    metadata,
    _job_id(primary_key=True),
    Column("name", Words(64), primary_key=True),  # taken in once, however often it is sent
    Column("num_rows", Integer, nullable=False),
)

samples = Table(
    "samples",
    metadata,
    Column("sample_id", SEQUENCE, primary_key=True, autoincrement=True),
    _job_id(),
    Column("kind", Words(8), nullable=False),  # step or eval
    Column("step", Integer, nullable=False),
    Column("request_id", BigInteger, nullable=False),  # siblings of one prompt have it in common
    Column("prompt_id", Words(200), nullable=False),
    Column("prompt", Words(), nullable=False),
    Column("completion", Words(), nullable=False),
    Column("reward", Float),
    Column("breakdown", Json, nullable=False),
    Column("num_tokens", Integer, nullable=False),
    Column("body", Json, nullable=False),  # every other column of the job's sample file
    Index(None, "job_id", "step", "sample_id"),
    Index(None, "job_id", "reward"),
)

checkpoints = Table(
    "checkpoints",
    metadata,
    _job_id(primary_key=True),
    Column("step", Integer, primary_key=True),
    Column("path", Words(), nullable=False),
    Column("time_s", Float, nullable=False),
)

logs = Table(
    "logs",
    metadata,
    Column("line_id", SEQUENCE, primary_key=True, autoincrement=True),
    _job_id(),
    Column("component", Words(64), nullable=False),  # a worker id, or `driver`
    Column("offset", BigInteger, nullable=False),  # of its first byte in the component's file
    Column("time_s", Float, nullable=False),
    Column("line", Words(), nullable=False),
    UniqueConstraint("job_id", "component", "offset"),
    Index(None, "job_id", "line_id"),
    sqlite_autoincrement=True,  # who listens goes by these ids, also after the newest lines were removed
)

uploads = Table(
    "uploads",
    metadata,
    Column("sha256", Words(64), primary_key=True),
    Column("num_bytes", BigInteger, nullable=False),
    Column("created_s", Float, nullable=False),
    Column("created_by", Words(128), nullable=False),
)

label_sets = Table(
    "label_sets",
    metadata,
    Column("set_id", Words(40), primary_key=True),
    Column("name", Words(128), nullable=False, unique=True),
    Column("created_by", Words(128), nullable=False),
    Column("created_s", Float, nullable=False, index=True),
    Column("seed", BigInteger, nullable=False),  # of the sides on which completions are shown
    Column("overlap", Integer, nullable=False),  # labels that are wanted of each pair
    Column("guidelines", Words(), nullable=False),
)

label_pairs = Table(
    "label_pairs",
    metadata,
    Column("set_id", Words(40), ForeignKey("label_sets.set_id", ondelete="CASCADE"), primary_key=True),
    Column("number", Integer, primary_key=True),  # in the order in which they came, from 0
    Column("pair_id", Words(200), nullable=False),
    Column("prompt", Json, nullable=False),  # a text, or the messages of a chat
    Column("completion_a", Words(), nullable=False),
    Column("completion_b", Words(), nullable=False),
    Column("provenance", Json, nullable=False),
    Column("num_labels", Integer, nullable=False, default=0),  # choices and ties that were not undone
    UniqueConstraint("set_id", "pair_id"),
    Index(None, "set_id", "num_labels", "number"),
)


def _pair() -> ForeignKeyConstraint:
    return ForeignKeyConstraint(["set_id", "number"], ["label_pairs.set_id", "label_pairs.number"], ondelete="CASCADE")


labels = Table(
    "labels",
    metadata,
    Column("label_id", SEQUENCE, primary_key=True, autoincrement=True),
    Column("set_id", Words(40), nullable=False),
    Column("number", Integer, nullable=False),
    Column("labeler", Words(128), nullable=False),  # the name of their token
    Column("choice", Words(4), nullable=False),  # a, b, tie or skip
    Column("shown_left", Words(1), nullable=False),  # a or b
    Column("taken_s", Float, nullable=False),
    Column("time_s", Float, nullable=False),
    Column("undone_s", Float),  # since when it does not count
    _pair(),
    Index(None, "set_id", "number", "labeler"),
    Index(None, "set_id", "labeler", "label_id"),
)

label_leases = Table(
    "label_leases",  # the pair that somebody has before them: one a person and set
    metadata,
    Column("set_id", Words(40), primary_key=True),
    Column("labeler", Words(128), primary_key=True),
    Column("number", Integer, nullable=False),
    Column("until_s", Float, nullable=False),
    _pair(),
)

answers = Table(
    "answers",  # to requests with an Idempotency-Key
    metadata,
    Column("token_id", Words(40), primary_key=True),
    Column("key", Words(200), primary_key=True),
    Column("request_sha256", Words(64), nullable=False),
    Column("status", Integer),  # NULL while the first request is under way
    Column("headers", Json),
    Column("body", Words()),
    Column("created_s", Float, nullable=False, index=True),
)

audit = Table(
    "audit",
    metadata,
    Column("audit_id", SEQUENCE, primary_key=True, autoincrement=True),
    Column("time_s", Float, nullable=False, index=True),
    Column("who", Words(128), nullable=False),
    Column("method", Words(8), nullable=False),
    Column("path", Words(), nullable=False),
    Column("status", Integer, nullable=False),
    Column("request_id", Words(64), nullable=False),
    Column("is_ok", Boolean, nullable=False),
)
