"""Runs migrations: for `billing migrate`, which hands over its connection, or for plain `alembic`.

All of them happen in one transaction, behind a lock that lasts as long as it does.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any, Literal

from alembic import context
from alembic.util import CommandError

from billing_cli.database.begin import SEARCH_PATH
from billing_cli.database.metadata import metadata
from billing_cli.database.schema import SCHEMA, WAIT_FOR_OTHER_MIGRATIONS
from billing_cli.features.migrate.job import open_session
from billing_cli.features.migrate.revisions import sqlalchemy_connection

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    import psycopg
    from sqlalchemy import Connection

# Alembic wants its version table before the first migration runs. A role that finds the schema
# made for it needs no right to create one.
CREATE_SCHEMA = (
    f"DO $create$ BEGIN IF to_regnamespace('{SCHEMA}') IS NULL "
    f"THEN CREATE SCHEMA {SCHEMA}; END IF; END $create$"
)


# Partitions are not declared: they are made by the month, and stay behind where they were detached.
PARTITION = re.compile(r".*_(\d{4}_\d{2}|default)")


def run_offline() -> None:
    """Write the script that an administrator would run."""
    configure(dialect_name="postgresql", literal_binds=True)
    with context.begin_transaction():
        run_in_transaction()


def migrate_alone(driver_connection: psycopg.Connection) -> None:
    """Migrate for the plain `alembic` command."""
    with sqlalchemy_connection(driver_connection) as connection:
        run_online(connection)


def run_online(connection: Connection) -> None:
    """Migrate in the connection's transaction, which whoever opened it ends."""
    configure(connection=connection)
    with context.begin_transaction():
        run_in_transaction()


def run_in_transaction() -> None:
    """Wait for whoever else migrates, then do what is left to do."""
    if context.is_offline_mode():
        # Whoever runs the script is an administrator, whose session may find functions of others.
        context.execute(SEARCH_PATH)
    context.execute(WAIT_FOR_OTHER_MIGRATIONS)
    context.execute(CREATE_SCHEMA)
    context.run_migrations()


def configure(**how: Any) -> None:
    """Keep to our schema: the database holds the tables and the version table of another owner."""
    context.configure(
        target_metadata=metadata,
        version_table_schema=SCHEMA,
        include_schemas=True,
        include_name=is_ours,
        compare_server_default=True,
        **how,
    )


def is_ours(
    name: str | None,
    type_: Literal[
        "schema", "table", "column", "index", "unique_constraint", "foreign_key_constraint"
    ],
    parents: MutableMapping[str, str | None],
) -> bool:
    """Tell autogenerate which names of the database to look at."""
    if type_ == "schema":
        return name == SCHEMA
    if type_ == "table" and PARTITION.fullmatch(name or ""):
        return False
    return parents["schema_name"] == SCHEMA


if context.is_offline_mode():
    run_offline()
elif "connection" in context.config.attributes:
    run_online(context.config.attributes["connection"])
elif "DATABASE_URL" not in os.environ:
    raise CommandError("DATABASE_URL is not set: it names the database to migrate")
else:
    with open_session(os.environ["DATABASE_URL"]) as session:
        session.transaction(migrate_alone)
