"""labels by people"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

SEQUENCE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
TABLES = ("label_sets", "label_pairs", "labels", "label_leases")


def upgrade() -> None:
    _sets()
    _pairs()
    _labels()
    _leases()


def downgrade() -> None:
    for table in reversed(TABLES):
        op.drop_table(table)


def _sets() -> None:
    op.create_table(
        "label_sets",
        sa.Column("set_id", sa.String(40), nullable=False),
        sa.Column("name", sa.String(128), nullable=False),
        sa.Column("created_by", sa.String(128), nullable=False),
        sa.Column("created_s", sa.Float(), nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("overlap", sa.Integer(), nullable=False),
        sa.Column("guidelines", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("set_id", name="pk_label_sets"),
        sa.UniqueConstraint("name", name="uq_label_sets_name"),
    )
    op.create_index("ix_label_sets_created_s", "label_sets", ["created_s"])


def _pairs() -> None:
    op.create_table(
        "label_pairs",
        sa.Column("set_id", sa.String(40), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("pair_id", sa.String(200), nullable=False),
        sa.Column("prompt", sa.JSON(), nullable=False),
        sa.Column("completion_a", sa.Text(), nullable=False),
        sa.Column("completion_b", sa.Text(), nullable=False),
        sa.Column("provenance", sa.JSON(), nullable=False),
        sa.Column("num_labels", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["set_id"], ["label_sets.set_id"], name="fk_label_pairs_set_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("set_id", "number", name="pk_label_pairs"),
        sa.UniqueConstraint("set_id", "pair_id", name="uq_label_pairs_set_id_pair_id"),
    )
    op.create_index("ix_label_pairs_set_id_num_labels_number", "label_pairs", ["set_id", "num_labels", "number"])


def _labels() -> None:
    op.create_table(
        "labels",
        sa.Column("label_id", SEQUENCE, autoincrement=True, nullable=False),
        sa.Column("set_id", sa.String(40), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("labeler", sa.String(128), nullable=False),
        sa.Column("choice", sa.String(4), nullable=False),
        sa.Column("shown_left", sa.String(1), nullable=False),
        sa.Column("taken_s", sa.Float(), nullable=False),
        sa.Column("time_s", sa.Float(), nullable=False),
        sa.Column("undone_s", sa.Float()),
        _of_pair("labels"),
        sa.PrimaryKeyConstraint("label_id", name="pk_labels"),
    )
    op.create_index("ix_labels_set_id_number_labeler", "labels", ["set_id", "number", "labeler"])
    op.create_index("ix_labels_set_id_labeler_label_id", "labels", ["set_id", "labeler", "label_id"])


def _leases() -> None:
    op.create_table(
        "label_leases",
        sa.Column("set_id", sa.String(40), nullable=False),
        sa.Column("labeler", sa.String(128), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("until_s", sa.Float(), nullable=False),
        _of_pair("label_leases"),
        sa.PrimaryKeyConstraint("set_id", "labeler", name="pk_label_leases"),
    )


def _of_pair(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        ["set_id", "number"],
        ["label_pairs.set_id", "label_pairs.number"],
        name=f"fk_{table}_set_id_number",
        ondelete="CASCADE",
    )
