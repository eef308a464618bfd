"""What is pruned is noted in the log, and compared with what was archived.

An archive that was made before has no hash: its month is archived again before it is pruned.
"""

from __future__ import annotations

from alembic import op

revision = "0011"
down_revision = "0010"

UPGRADE = (
    "ALTER TABLE billing.seals DROP CONSTRAINT seals_facts_check",
    """
ALTER TABLE billing.seals
  ADD CONSTRAINT seals_facts_check CHECK (records + charges > 0 OR job = 'prune')
""",
    "ALTER TABLE billing.archives ADD COLUMN facts_sha256 bytea",
    """
COMMENT ON COLUMN billing.archives.facts_sha256 IS
  'Over run, step and line of the month''s usage records, then of its charges.'
""",
)


def upgrade() -> None:
    for statement in UPGRADE:
        op.execute(statement)


def downgrade() -> None:
    op.execute("ALTER TABLE billing.archives DROP COLUMN facts_sha256")
    op.execute("ALTER TABLE billing.seals DROP CONSTRAINT seals_facts_check")
    op.execute("""
ALTER TABLE billing.seals
  ADD CONSTRAINT seals_facts_check CHECK (records + charges > 0) NOT VALID
""")
