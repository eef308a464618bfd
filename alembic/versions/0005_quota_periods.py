"""Quota periods: renewals of included quotas that runs have seen."""

from __future__ import annotations

from alembic import op

revision = "0005"
down_revision = "0004"

QUOTA_PERIODS = """
CREATE TABLE billing.quota_periods (
  account_uuid uuid NOT NULL,
  period_start timestamptz NOT NULL,
  seen_at timestamptz NOT NULL DEFAULT now(),
  quota_bytes bigint NOT NULL,
  included_before bigint NOT NULL,
  former_quota_bytes bigint NOT NULL,
  run_id uuid NOT NULL,
  PRIMARY KEY (account_uuid, period_start)
)
"""

COMMENTS = {
    "TABLE billing.quota_periods": "Renewals of included quotas, as seen by the first run that"
    " charged the account then.",
    "COLUMN billing.quota_periods.period_start": "As the quota state had it when a run saw it"
    " first.",
    "COLUMN billing.quota_periods.quota_bytes": "What minutes charged before had left of the"
    " renewed quota; may be below 0.",
    "COLUMN billing.quota_periods.included_before": "Included bytes of minutes of the period that"
    " were charged before.",
    "COLUMN billing.quota_periods.former_quota_bytes": "What is left of the former quota; late"
    " minutes of its period use it.",
}


def upgrade() -> None:
    op.execute(QUOTA_PERIODS)
    for thing, comment in COMMENTS.items():
        op.execute(f"COMMENT ON {thing} IS '{comment}'")


def downgrade() -> None:
    op.execute("DROP TABLE billing.quota_periods")
