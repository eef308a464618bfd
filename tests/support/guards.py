"""Changes behind the back of the triggers that protect rows, for tests that look for damage."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from psycopg import Connection

SWITCH_GUARDS = """
DO $$ DECLARE guard record; BEGIN
  FOR guard IN SELECT tgrelid::regclass::text AS relation, tgname FROM pg_trigger
                WHERE tgfoid = 'billing.refuse_change()'::regprocedure LOOP
    EXECUTE 'ALTER TABLE ' || guard.relation || ' {} TRIGGER ' || guard.tgname;
  END LOOP;
END $$
"""


@contextmanager
def without_guards(connection: Connection[Any]) -> Iterator[None]:
    """Let the owner change whatever it likes, for a block within one transaction."""
    connection.execute("SET LOCAL session_replication_role = replica")
    connection.execute(SWITCH_GUARDS.format("DISABLE").encode())
    yield
    connection.execute(SWITCH_GUARDS.format("ENABLE ALWAYS").encode())
