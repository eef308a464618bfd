"""Indexes of streams: a run reads those that are present, and new ones, not all that ever were."""

from __future__ import annotations

from alembic import op

revision = "0012"
down_revision = "0011"

# Not CONCURRENTLY: a migration is one transaction. Nothing writes meanwhile, as runs are stopped.
INDEXES = {
    "streams_present": ("(stored_node_id) WHERE absent_since IS NULL OR before_uplink IS NOT NULL"),
    "streams_first_seen": "(stored_node_id, first_seen_at)",
}


def upgrade() -> None:
    for name, columns in INDEXES.items():
        op.execute(f"CREATE INDEX {name} ON billing.streams {columns}")


def downgrade() -> None:
    for name in INDEXES:
        op.execute(f"DROP INDEX billing.{name}")
