from __future__ import annotations

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from billing_cli.database.schema import HEAD_REVISION
from billing_cli.errors import (
    BillingError,
    ConfigurationError,
    DatabaseUnavailableError,
    SchemaError,
)
from billing_cli.features.migrate.job import Migration, migrate
from tests.support.catalog import rows_of, schema_of

SHARED_TABLES = {
    "public.account_billing_profiles",
    "public.account_quota_states",
    "public.billing_ledger",
    "public.billing_source_sync_state",
    "public.traffic_minute_buckets",
    "public.traffic_stat_checkpoints",
    "public.users",
}

# What was done to a shared table, and what the error says of it.
WRONG_SHAPES = {
    "ALTER TABLE billing_ledger ALTER amount_delta TYPE numeric": (
        "public.billing_ledger.amount_delta is numeric, expected double precision"
    ),
    "ALTER TABLE billing_ledger ALTER created_at TYPE timestamp": (
        "public.billing_ledger.created_at is timestamp without time zone, "
        "expected timestamp with time zone"
    ),
    "ALTER TABLE users ALTER proxy_uuid DROP DEFAULT, ALTER proxy_uuid TYPE text": (
        "public.users.proxy_uuid is text, expected uuid"
    ),
    "ALTER TABLE traffic_minute_buckets DROP COLUMN rating_status": (
        "public.traffic_minute_buckets.rating_status is missing, expected text"
    ),
    "ALTER TABLE traffic_stat_checkpoints RENAME last_seen_at TO seen_at": (
        "public.traffic_stat_checkpoints.last_seen_at is missing, expected timestamp with time zone"
    ),
    "ALTER TABLE traffic_minute_buckets DROP CONSTRAINT traffic_minute_buckets_pkey, "
    "ADD PRIMARY KEY (bucket_start, node_id, account_uuid)": (
        "public.traffic_minute_buckets has the primary key (account_uuid, bucket_start, node_id), "
        "expected (account_uuid, bucket_start, line_code, node_id, region)"
    ),
    "ALTER TABLE account_billing_profiles DROP CONSTRAINT account_billing_profiles_pkey": (
        "public.account_billing_profiles has the primary key (), expected (account_uuid)"
    ),
    "ALTER TABLE billing_source_sync_state ALTER last_completed_until SET NOT NULL": (
        "public.billing_source_sync_state.last_completed_until is NOT NULL, but must take NULL"
    ),
    "ALTER TABLE account_quota_states ALTER remaining_included_quota TYPE integer": (
        "public.account_quota_states.remaining_included_quota is integer, expected bigint"
    ),
    "DROP TABLE account_billing_profiles; "
    "CREATE VIEW account_billing_profiles AS SELECT uuid AS account_uuid FROM users": (
        "public.account_billing_profiles is a view: it has to be a plain table"
    ),
}


def test_a_fresh_database_gets_all_tables(empty_database_url: str) -> None:
    """Nothing is needed beforehand, and the result tells which shared tables were made."""
    done = migrate(empty_database_url)
    assert done.from_revision is None
    assert done.to_revision == HEAD_REVISION
    assert set(done.created_tables) == SHARED_TABLES
    assert migrate(empty_database_url, check=True) == Migration(HEAD_REVISION, HEAD_REVISION)


def test_a_second_migration_changes_nothing(database_url: str) -> None:
    """At head there is nothing left to do."""
    before = schema_of(database_url, "billing"), schema_of(database_url, "public")
    assert migrate(database_url) == Migration(HEAD_REVISION, HEAD_REVISION)
    assert (schema_of(database_url, "billing"), schema_of(database_url, "public")) == before


def test_existing_shared_tables_stay_as_they_are(deployed_database_url: str) -> None:
    """Extra columns, other defaults, rows and a foreign alembic_version are all left alone."""
    before = schema_of(deployed_database_url, "public"), rows_of(deployed_database_url, "public")
    assert migrate(deployed_database_url) == Migration(None, HEAD_REVISION)
    after = schema_of(deployed_database_url, "public"), rows_of(deployed_database_url, "public")
    assert after == before
    assert after[1]["alembic_version"] == ["(f00dfeedcafe)"]


def test_only_missing_shared_tables_are_created(deployed_database_url: str) -> None:
    """A partly prepared database is completed."""
    with psycopg.connect(deployed_database_url) as connection:
        connection.execute("DROP TABLE billing_ledger, account_quota_states")
    done = migrate(deployed_database_url)
    assert set(done.created_tables) == {"public.account_quota_states", "public.billing_ledger"}


@pytest.mark.parametrize(("alteration", "problem"), WRONG_SHAPES.items())
def test_a_wrong_shared_table_is_named_and_nothing_is_created(
    deployed_database_url: str, alteration: str, problem: str
) -> None:
    """The error names table and column, and leaves the database as it was."""
    with psycopg.connect(deployed_database_url) as connection:
        connection.execute(alteration)
    before = schema_of(deployed_database_url, "public")
    with pytest.raises(SchemaError) as caught:
        migrate(deployed_database_url)
    assert str(caught.value) == problem
    assert caught.value.exit_code == 78
    assert schema_of(deployed_database_url, "public") == before
    assert schema_of(deployed_database_url, "billing") == []


def test_many_differences_are_told_in_one_line(deployed_database_url: str) -> None:
    """The first few are named, the rest are counted."""
    with psycopg.connect(deployed_database_url) as connection:
        for column in ("uplink_bytes", "downlink_bytes", "total_bytes", "multiplier", "created_at"):
            connection.execute(f"ALTER TABLE traffic_minute_buckets DROP {column}".encode())
        connection.execute("ALTER TABLE billing_ledger DROP rated_bytes, DROP amount_delta")
    with pytest.raises(SchemaError, match=r"^[^\n]*; and 2 more$"):
        migrate(deployed_database_url)


def test_a_table_that_no_migration_made_is_not_taken_for_ours(deployed_database_url: str) -> None:
    """A schema of the same name that holds something else is told, and left alone."""
    with psycopg.connect(deployed_database_url) as connection:
        connection.execute("CREATE SCHEMA billing; CREATE TABLE billing.runs (at date)")
    before = schema_of(deployed_database_url, "billing")
    with pytest.raises(SchemaError, match="runs exists, but was not made by a migration"):
        migrate(deployed_database_url)
    assert schema_of(deployed_database_url, "billing") == before


def test_a_migration_that_fails_leaves_nothing_behind(empty_database_url: str) -> None:
    """All of it is one transaction: here the name of what is made last is taken."""
    with psycopg.connect(empty_database_url) as connection:
        connection.execute(
            "CREATE SCHEMA billing; CREATE FUNCTION billing.refuse_change() RETURNS trigger "
            "LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'"
        )
    before = schema_of(empty_database_url, "billing")
    with pytest.raises(BillingError, match='"refuse_change" already exists'):
        migrate(empty_database_url)
    assert schema_of(empty_database_url, "billing") == before
    assert schema_of(empty_database_url, "public") == []


def test_check_changes_nothing_and_tells_to_migrate(deployed_database_url: str) -> None:
    """A database that was never migrated is behind."""
    with pytest.raises(SchemaError, match="no billing tables yet; run `billing migrate`"):
        migrate(deployed_database_url, check=True)
    assert schema_of(deployed_database_url, "billing") == []


@pytest.mark.parametrize("check", [True, False])
def test_an_unknown_revision_is_left_to_the_version_that_knows_it(
    database_url: str, *, check: bool
) -> None:
    """An older version of the program touches nothing of a newer schema."""
    with psycopg.connect(database_url) as connection:
        connection.execute("UPDATE billing.alembic_version SET version_num = '9999'")
    with pytest.raises(SchemaError, match="revision 9999, which this version does not know"):
        migrate(database_url, check=check)


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        ("ALTER TABLE billing.gaps DROP streams", "billing.gaps.streams is missing, .*integer"),
        ("DROP TABLE billing.held_deltas", "billing.held_deltas is missing"),
        ("ALTER TABLE billing.charges DISABLE TRIGGER ALL", "billing.charges is not append-only"),
        (
            "ALTER TABLE billing.usage_records_default ENABLE TRIGGER usage_records_append_only",
            "billing.usage_records_default is not append-only",
        ),
        (
            "DROP TRIGGER usage_records_append_only ON billing.usage_records",
            "billing.usage_records is not append-only",
        ),
        (
            "DROP TRIGGER charges_append_only ON billing.charges_default",
            "billing.charges_default is not append-only",
        ),
        ("DROP TABLE public.billing_source_sync_state", "billing_source_sync_state is missing"),
    ],
)
def test_check_finds_what_was_changed_by_hand(database_url: str, damage: str, problem: str) -> None:
    """The right revision alone is no proof that the tables are right."""
    with psycopg.connect(database_url) as connection:
        connection.execute(damage)
    with pytest.raises(SchemaError, match=problem):
        migrate(database_url, check=True)


@pytest.mark.parametrize("create_shared_tables", [True, False])
@pytest.mark.parametrize("missing", ["account_quota_states", "ALL"])
def test_shared_tables_that_are_lost_later_are_to_be_restored(
    database_url: str, missing: str, *, create_shared_tables: bool
) -> None:
    """Only the first migration creates them, because they were not empty."""
    with psycopg.connect(database_url) as connection:
        names = missing if missing != "ALL" else ", ".join(SHARED_TABLES)
        connection.execute(f"DROP TABLE {names} CASCADE".encode())
    with pytest.raises(SchemaError, match=r"accounts\.svc\.plus: restore what is missing$"):
        migrate(database_url, create_shared_tables=create_shared_tables)


def test_every_form_of_connection_string_works(empty_database_url: str) -> None:
    """Both schemes of a URI, and libpq's keywords."""
    parts = conninfo_to_dict(empty_database_url).items()
    keywords = " ".join(f"{name}={value}" for name, value in parts)
    assert migrate(keywords).from_revision is None
    for url in (empty_database_url, empty_database_url.replace("postgresql:", "postgres:")):
        assert migrate(url) == Migration(HEAD_REVISION, HEAD_REVISION)


def test_an_unreachable_database_is_told_without_its_password() -> None:
    """The failure has a class of its own, and keeps the secret."""
    with pytest.raises(DatabaseUnavailableError) as caught:
        migrate("postgresql://billing:s3cret@127.0.0.1:1/account")
    assert "s3cret" not in str(caught.value)


def test_a_string_that_is_no_dsn_is_not_repeated() -> None:
    """It may hold a password all the same."""
    with pytest.raises(ConfigurationError) as caught:
        migrate("mysql://billing:s3cret@localhost/account")
    assert "s3cret" not in str(caught.value)


def test_a_role_without_rights_is_told_so(deployed_database_url: str) -> None:
    """The error is the schema's, and names what was refused."""
    role = conninfo_to_dict(deployed_database_url)["dbname"]
    restricted = make_conninfo(deployed_database_url, options=f"-c role={role}")
    with psycopg.connect(deployed_database_url, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {role}".encode())
        try:
            with pytest.raises(SchemaError, match="permission denied for database"):
                migrate(restricted)
            # A schema made for the role beforehand is enough, and what the errors ask for.
            connection.execute(f"CREATE SCHEMA billing AUTHORIZATION {role}".encode())
            for reason in ("can't give functions to role", "can't grant on public.users"):
                with pytest.raises(SchemaError, match=reason) as refused:
                    migrate(restricted)
                connection.execute(str(refused.value).partition(" run: ")[2].encode())
            assert migrate(restricted) == Migration(None, HEAD_REVISION)
        finally:
            connection.execute(f"DROP OWNED BY {role} CASCADE; DROP ROLE {role}".encode())
