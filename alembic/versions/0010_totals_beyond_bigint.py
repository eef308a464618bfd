"""Totals of bytes as numeric: what hostile exporters sum up to in one run may exceed a bigint."""

from __future__ import annotations

from alembic import op

revision = "0010"
down_revision = "0009"

COLUMNS = ("included_bytes", "returned_included_bytes", "charged_bytes", "returned_charged_bytes")


def upgrade() -> None:
    _alter("numeric")


def downgrade() -> None:
    _alter("bigint")


def _alter(type_name: str) -> None:
    changes = ", ".join(f"ALTER COLUMN {name} TYPE {type_name}" for name in COLUMNS)
    op.execute(f"ALTER TABLE billing.totals {changes}")
