from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from psycopg.errors import RestrictViolation

from billing_cli.database.metadata import metadata
from billing_cli.database.schema import APPEND_ONLY_TABLES, REVISIONS
from billing_cli.database.shared_metadata import shared_metadata
from billing_cli.features.migrate.job import migrate, open_session
from billing_cli.features.migrate.revisions import alembic_config, sqlalchemy_connection
from tests.support.catalog import rows_of, schema_of

if TYPE_CHECKING:
    from sqlalchemy import MetaData

ALEMBIC_INI = Path(__file__).parents[3] / "alembic.ini"

STREAM = """
INSERT INTO billing.streams (stored_node_id, inbound_tag, sample_uuid, origin, first_seen_at,
  first_uplink_total, first_downlink_total, seen_at, uplink_total, downlink_total)
VALUES ('prod:jp-1', '', gen_random_uuid(), 'new', now(), 0, 0, now(), 7, 8)
RETURNING stream_id
"""

USAGE_RECORD = """
INSERT INTO billing.usage_records (stream_id, bucket_start, from_at, to_at, reset_epoch,
  uplink_start, uplink_end, downlink_start, downlink_end, account_uuid)
VALUES (%(stream_id)s, '2026-04-08T12:00:00Z', '2026-04-08T12:00:00Z', '2026-04-08T12:00:30Z', 0,
  0, 7, 0, 8, gen_random_uuid())
"""

CHARGE = """
INSERT INTO billing.charges (ledger_id, entry_type, bucket_start, stored_node_id, account_uuid,
  region, line_code, included_bytes, rated_bytes, price_per_byte, multiplier, amount_delta,
  quota_before, balance_before, pricing_rule_version, run_id)
VALUES (gen_random_uuid(), 'traffic_charge', '2026-04-08T12:00:00Z', 'prod:jp-1',
  gen_random_uuid(), '', '', 0, 15, 0.1, 1, -1.5, 0, 0, 'v1', gen_random_uuid())
"""


def test_the_migrated_schema_is_the_declared_one(
    database_url: str, empty_database_url: str
) -> None:
    """Columns, defaults, keys, checks, indexes, comments, storage, triggers: nothing differs."""
    create(empty_database_url, shared_metadata)
    create(empty_database_url, metadata)
    migrated = [row for row in schema_of(database_url, "billing") if not is_version_table(row)]
    assert migrated == schema_of(empty_database_url, "billing")
    assert schema_of(database_url, "public") == schema_of(empty_database_url, "public")


def test_the_script_makes_the_same_schema(database_url: str, empty_database_url: str) -> None:
    """What an administrator runs by hand leads to what `migrate` would have made."""
    script = migrate("", sql=True).script
    assert script is not None
    with psycopg.connect(empty_database_url, autocommit=True) as connection:
        connection.execute(script.encode())
    for schema in ("billing", "public"):
        assert schema_of(empty_database_url, schema) == schema_of(database_url, schema)
    migrate(empty_database_url, check=True)


def test_the_script_leaves_shared_tables_alone(deployed_database_url: str) -> None:
    """It asks for each of them whether it is there, as it can't know where it will run."""
    before = schema_of(deployed_database_url, "public"), rows_of(deployed_database_url, "public")
    with psycopg.connect(deployed_database_url, autocommit=True) as connection:
        connection.execute(str(migrate("", sql=True).script).encode())
    migrate(deployed_database_url, check=True)
    after = schema_of(deployed_database_url, "public"), rows_of(deployed_database_url, "public")
    assert after == before


def test_autogenerate_finds_nothing_to_do(
    deployed_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It sees no table of another owner, and no difference in ours."""
    migrate(deployed_database_url)
    monkeypatch.setenv("DATABASE_URL", deployed_database_url)
    command.check(Config(ALEMBIC_INI))


def test_a_downgrade_leaves_public_alone(
    deployed_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Our tables go, all of them; then the way up is open again."""
    with psycopg.connect(deployed_database_url) as connection:
        connection.execute("DROP TABLE billing_source_sync_state")
    migrate(deployed_database_url)
    before = schema_of(deployed_database_url, "public"), rows_of(deployed_database_url, "public")
    monkeypatch.setenv("DATABASE_URL", deployed_database_url)
    command.downgrade(Config(ALEMBIC_INI), "base")
    after = schema_of(deployed_database_url, "public"), rows_of(deployed_database_url, "public")
    assert after == before
    left = schema_of(deployed_database_url, "billing")
    assert [row for row in left if not is_version_table(row)] == []
    assert migrate(deployed_database_url).from_revision is None


def test_the_known_revisions_are_those_of_the_migrations() -> None:
    """A run compares the database with these, and never loads the migrations themselves."""
    script = ScriptDirectory.from_config(alembic_config())
    assert tuple(reversed([each.revision for each in script.walk_revisions()])) == REVISIONS
    assert script.get_heads() == [REVISIONS[-1]]


@pytest.mark.parametrize("statement", ["UPDATE {} SET account_uuid = NULL", "DELETE FROM {}"])
@pytest.mark.parametrize("condition", ["", " WHERE false"])
@pytest.mark.parametrize("table", APPEND_ONLY_TABLES)
def test_evidence_is_append_only(
    connection: psycopg.Connection[dict[str, Any]], table: str, statement: str, condition: str
) -> None:
    """UPDATE and DELETE are refused whether they meet a row or not; the error names the table."""
    store_evidence(connection)
    with pytest.raises(RestrictViolation, match=f"^billing.{table} is append-only") as caught:
        connection.execute(f"{statement.format(f'billing.{table}')}{condition}".encode())
    assert caught.value.sqlstate == "23001"


@pytest.mark.parametrize("table", APPEND_ONLY_TABLES)
def test_evidence_can_not_be_truncated(
    connection: psycopg.Connection[dict[str, Any]], table: str
) -> None:
    """A statement that has no rows is refused as well."""
    store_evidence(connection)
    with pytest.raises(RestrictViolation, match=f"{table} is append-only: TRUNCATE is refused"):
        connection.execute(f"TRUNCATE billing.{table}".encode())


@pytest.mark.parametrize(
    "statement", ["UPDATE {} SET account_uuid = NULL", "DELETE FROM {}", "TRUNCATE {}"]
)
@pytest.mark.parametrize("table", APPEND_ONLY_TABLES)
def test_no_partition_is_a_way_around(
    connection: psycopg.Connection[dict[str, Any]], table: str, statement: str
) -> None:
    """A statement that names the partition fires no trigger of the table, but its own."""
    connection.execute("SELECT billing.make_partition('2026-04-08T00:00:00Z')")
    store_evidence(connection)
    for partition in (f"{table}_2026_04", f"{table}_default"):
        with pytest.raises(RestrictViolation, match=f"^billing.{partition} is append-only"):
            connection.execute(statement.format(f"billing.{partition}").encode())


@pytest.mark.parametrize("table", APPEND_ONLY_TABLES)
def test_an_upsert_can_not_change_evidence(
    connection: psycopg.Connection[dict[str, Any]], table: str
) -> None:
    """A conflict may be ignored, never turned into an UPDATE."""
    store_evidence(connection)
    again = f"INSERT INTO billing.{table} TABLE billing.{table} ON CONFLICT"
    key = "account_uuid, ledger_id" if table == "charges" else "stream_id, from_at, revision"
    assert connection.execute(f"{again} DO NOTHING".encode()).rowcount == 0
    with pytest.raises(RestrictViolation):
        connection.execute(
            f"{again} (bucket_start, {key}) DO UPDATE SET account_uuid = NULL".encode()
        )


def store_evidence(connection: psycopg.Connection[dict[str, Any]]) -> None:
    """Store one row of each append-only table."""
    stream = connection.execute(STREAM).fetchone()
    connection.execute(USAGE_RECORD, stream)
    connection.execute(CHARGE)


def create(database_url: str, declared: MetaData) -> None:
    """Create the tables as declared, without any migration."""

    def work(driver_connection: psycopg.Connection) -> None:
        with sqlalchemy_connection(driver_connection) as connection:
            declared.create_all(connection)

    with open_session(database_url) as session:
        session.transaction(work)


def is_version_table(row: tuple[object, ...]) -> bool:
    """Tell rows about Alembic's own table, which no metadata declares."""
    return "alembic_version" in json.dumps(row, default=str)


@pytest.mark.parametrize("table", APPEND_ONLY_TABLES)
def test_a_replicating_session_can_not_change_rows_either(database_url: str, table: str) -> None:
    """`session_replication_role` switches ordinary triggers off, but not these."""
    with psycopg.connect(database_url) as connection:
        connection.execute("SET session_replication_role = replica")
        members = connection.execute(
            "SELECT relid::regclass::text FROM pg_partition_tree(%s)", (f"billing.{table}",)
        ).fetchall()
        assert len(members) > 2
        for (member,) in members:
            with pytest.raises(RestrictViolation), connection.transaction():
                connection.execute(f"TRUNCATE {member}".encode())
