"""The digest of the samples at a source's watermark."""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"

UPGRADE = (
    """
ALTER TABLE billing.sources
  ADD COLUMN samples_bytes bigint,
  ADD COLUMN samples_digest bytea,
  ADD CONSTRAINT sources_samples_check
    CHECK ((samples_bytes IS NULL) = (samples_digest IS NULL))
""",
    """
COMMENT ON COLUMN billing.sources.samples_bytes IS
  'How long the text of the samples at the watermark was; null where it is not known.'
""",
    """
COMMENT ON COLUMN billing.sources.samples_digest IS
  'Its SHA-256: what comes again with the same one is not decoded again.'
""",
)


def upgrade() -> None:
    for statement in UPGRADE:
        op.execute(statement)


def downgrade() -> None:
    op.execute("ALTER TABLE billing.sources DROP COLUMN samples_bytes, DROP COLUMN samples_digest")
