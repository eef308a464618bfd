"""An owner without privileges for the functions that lock accounts; sources that stay locked."""

from __future__ import annotations

from alembic import op

from billing_cli.database.functions import ASSIGN_LOCK_ROLE, MAKE_PARTITIONS

revision = "0008"
down_revision = "0007"

BUSY_SOURCES = """
CREATE TABLE billing.busy_sources (
  source_id text PRIMARY KEY,
  since timestamptz NOT NULL,
  last_at timestamptz NOT NULL
)
"""

COMMENTS = {
    "TABLE billing.busy_sources": "Sources that runs found locked by another session; obsolete"
    " once a later run got through.",
    "COLUMN billing.busy_sources.since": "The first of the runs in a row that found it locked.",
    "COLUMN billing.busy_sources.last_at": "The last one.",
}

# As before: by an advisory lock, which every role can take.
FORMER_LOCK = """  IF NOT pg_try_advisory_xact_lock(27700462113877608) THEN
    RETURN 0;
  END IF;
"""


def upgrade() -> None:
    op.execute(BUSY_SOURCES)
    for thing, comment in COMMENTS.items():
        op.execute(f"COMMENT ON {thing} IS '{comment}'")
    op.execute(MAKE_PARTITIONS.replace("CREATE", "CREATE OR REPLACE", 1))
    op.execute(ASSIGN_LOCK_ROLE)


def downgrade() -> None:
    before, _, rest = MAKE_PARTITIONS.partition("BEGIN\n")
    _, _, after = rest.partition("  END;\n")
    former = f"{before}BEGIN\n{FORMER_LOCK}{after}"
    op.execute(former.replace("CREATE", "CREATE OR REPLACE", 1))
    for name in ("lock_accounts", "lock_available_accounts"):
        op.execute(f"ALTER FUNCTION billing.{name}(uuid[]) OWNER TO CURRENT_USER")
    op.execute("DROP TABLE billing.busy_sources")
