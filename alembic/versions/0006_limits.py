"""Limits of streams that an operator may lift for one run, and usage above a daily maximum."""

from __future__ import annotations

from alembic import op

revision = "0006"
down_revision = "0005"

SOURCES = """
ALTER TABLE billing.sources
  ADD COLUMN accepted_at timestamptz,
  ADD COLUMN accepted_reason text NOT NULL DEFAULT '',
  ADD COLUMN accepted_until timestamptz
"""

HELD_REASONS = """
ALTER TABLE billing.held_deltas
  DROP CONSTRAINT held_deltas_held_reason_check,
  ADD CONSTRAINT held_deltas_held_reason_check
    CHECK (held_reason IN ({}))
"""

DAILY_CHARGES = """
CREATE TABLE billing.daily_charges (
  day date NOT NULL,
  kind text NOT NULL,
  name text NOT NULL,
  amount numeric(30,9) NOT NULL,
  PRIMARY KEY (day, kind, name),
  CONSTRAINT daily_charges_kind_check CHECK (kind IN ('account', 'node'))
)
WITH (fillfactor = 50)
"""

COMMENTS = {
    "TABLE billing.daily_charges": "What collect charged by UTC day of the minutes, for those that"
    " have a daily maximum.",
    "COLUMN billing.daily_charges.name": "The account''s uuid, or the stored node id.",
    "COLUMN billing.sources.accepted_at": "When an operator let one run pass the limits of new"
    " streams; null once that run was.",
    "COLUMN billing.sources.accepted_reason": "Why the last such run may pass.",
    "COLUMN billing.sources.accepted_until": "The watermark of that run: streams up to there do"
    " not count any more.",
}


def upgrade() -> None:
    op.execute(SOURCES)
    op.execute(DAILY_CHARGES)
    op.execute(HELD_REASONS.format("'account_rate', 'line_rate', 'duplicate', 'daily_charge'"))
    for thing, comment in COMMENTS.items():
        op.execute(f"COMMENT ON {thing} IS '{comment}'")


def downgrade() -> None:
    op.execute("DROP TABLE billing.daily_charges")
    # What waits for a decision goes on waiting, under the nearest reason that is known there.
    op.execute(
        "UPDATE billing.held_deltas SET held_reason = 'account_rate'"
        " WHERE held_reason = 'daily_charge'"
    )
    op.execute(HELD_REASONS.format("'account_rate', 'line_rate', 'duplicate'"))
    op.execute(
        "ALTER TABLE billing.sources DROP COLUMN accepted_at, DROP COLUMN accepted_reason,"
        " DROP COLUMN accepted_until"
    )
