"""What `check` says of real databases and roles; it never writes to any."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg import sql

from billing_cli.config.settings import load_settings
from billing_cli.errors import UsageError
from billing_cli.features.check.job import check
from billing_cli.features.check.server_probes import version_findings
from billing_cli.features.migrate.job import migrate
from billing_cli.simulator.accounts import save_profile, save_users
from billing_cli.simulator.server import serve
from billing_cli.simulator.traffic import Fleet

if TYPE_CHECKING:
    from pathlib import Path

    from billing_cli.features.check.findings import CheckReport, Finding
    from tests.support.postgres import Databases

DOWN = {"EXPORTER_BASE_URL": "http://127.0.0.1:1", "BILLING_ALLOW_ZERO_PRICE": "true"}


def test_the_role_of_the_jobs_is_all_right(job_url: str) -> None:
    """It may do what it needs and nothing else."""
    report = checked(DATABASE_URL=job_url, **DOWN)
    found = told_of(report, "database")
    assert {one.name: one.state for one in found} == dict.fromkeys(
        (
            "connection",
            "encryption",
            "server features",
            "schema",
            "privileges",
            "role",
            "partitions",
        ),
        "ok",
    )
    # Only the exporter is down.
    assert report.outcome == "attention"


def test_a_missing_price_is_reported_before_a_run_fails_for_it(
    connection: psycopg.Connection[Any], job_url: str
) -> None:
    """Without any price a run would end with 78; accounts without one are counted."""

    def prices(**variables: str) -> tuple[str, str]:
        report = checked(DATABASE_URL=job_url, EXPORTER_BASE_URL="http://127.0.0.1:1", **variables)
        (found,) = (
            finding for finding in report.findings if finding.name in {"prices", "settings"}
        )
        return found.state, found.text

    state, text = prices()
    assert (state, text.partition(":")[0]) == ("failed", "no account has a price")
    assert prices(PRICE_PER_BYTE="1e-9") == ("ok", "every account has a price")
    fleet = Fleet(seed=1, start=datetime.now(UTC))
    save_users(connection, [fleet.add_user() for _ in range(3)])
    users = [user.uuid for user in fleet.users]
    save_profile(connection, users[0], price_per_byte=1e-9)
    assert prices() == (
        "warning",
        "2 accounts without a price: usage stays pending until PRICE_PER_BYTE or a profile has one",
    )
    for user in users[1:]:
        save_profile(connection, user, price_per_byte=0)
    connection.execute(
        "UPDATE public.account_billing_profiles SET package_name = 'trial'"
        " WHERE base_price_per_byte = 0"
    )
    assert prices(BILLING_FREE_PACKAGES='["trial"]') == ("ok", "every account has a price")


def test_a_superuser_is_a_warning(database_url: str) -> None:
    """It works, and that is all."""
    report = checked(DATABASE_URL=database_url, **DOWN)
    assert one_of(report, "privileges").state == "ok"
    found = one_of(report, "role")
    assert (found.state, found.text.startswith("a superuser")) == ("warning", True)


@pytest.mark.parametrize(
    ("statement", "text"),
    [
        ("REVOKE INSERT ON billing.charges FROM {role}", "INSERT (bucket_start"),
        ("REVOKE UPDATE (current_balance) ON public.account_quota_states FROM {role}", "UPDATE"),
        ("REVOKE USAGE ON SCHEMA billing FROM {role}", "USAGE on schema billing"),
        ("REVOKE USAGE ON SCHEMA public FROM {role}, PUBLIC", "USAGE on schema public"),
    ],
)
def test_a_missing_privilege_is_named(
    connection: psycopg.Connection[Any],
    job_url: str,
    databases: Databases,
    statement: Any,
    text: str,
) -> None:
    """A job would end with 78 for it."""
    connection.execute(sql.SQL(statement).format(role=sql.Identifier(databases.job_role)))
    report = checked(DATABASE_URL=job_url, **DOWN)
    found = one_of(report, "privileges")
    assert (found.state, text in found.text) == ("failed", True), found
    assert report.outcome == "configuration"


@pytest.mark.parametrize(
    ("statement", "text"),
    [
        ("GRANT DELETE ON public.billing_ledger TO {role}", "DELETE on public.billing_ledger"),
        ("GRANT UPDATE ON billing.charges TO {role}", "UPDATE (bucket_start"),
        ("GRANT CREATE ON SCHEMA public TO {role}", "CREATE on schema public"),
        ("ALTER TABLE billing.usage_records OWNER TO {role}", "owns billing.usage_records"),
    ],
)
def test_a_privilege_too_many_is_a_warning(
    connection: psycopg.Connection[Any],
    job_url: str,
    databases: Databases,
    statement: Any,
    text: str,
) -> None:
    """Evidence is safest where nobody can change it."""
    connection.execute(sql.SQL(statement).format(role=sql.Identifier(databases.job_role)))
    report = checked(DATABASE_URL=job_url, **DOWN)
    assert one_of(report, "privileges").state == "ok"
    found = one_of(report, "role")
    assert (found.state, text in found.text) == ("warning", True), found


def test_powers_beyond_the_database_are_a_warning(databases: Databases, database_url: str) -> None:
    """A role that can make roles, or read files, is not limited by what it is granted here."""
    name = f"powerful_{uuid.uuid4().hex}"
    role = sql.Identifier(name)
    create = "CREATE ROLE {} LOGIN CREATEROLE PASSWORD {} IN ROLE pg_read_server_files"
    databases.admin.execute(sql.SQL(create).format(role, sql.Literal(name)))
    try:
        own_url = databases.job_url(database_url).replace(databases.job_role, name)
        report = checked(DATABASE_URL=own_url, **DOWN)
    finally:
        databases.admin.execute(sql.SQL("DROP ROLE {}").format(role))
    assert "USAGE on schema billing" in one_of(report, "privileges").text
    assert "act as pg_read_server_files; create roles" in one_of(report, "role").text


def test_a_database_that_was_never_migrated_is_told_from_one_that_is_wrong(
    empty_database_url: str, connection: psycopg.Connection[Any], database_url: str
) -> None:
    """Both end with 78; nothing is said of privileges then."""
    new = checked(DATABASE_URL=empty_database_url, **DOWN)
    assert "no billing tables yet; run `billing migrate`" in one_of(new, "schema").text
    connection.execute("ALTER TABLE billing.streams DROP COLUMN absent_since")
    wrong = checked(DATABASE_URL=database_url, **DOWN)
    assert "billing.streams.absent_since is missing" in one_of(wrong, "schema").text
    for report in (new, wrong):
        assert report.outcome == "configuration"
        assert "privileges" not in {finding.name for finding in report.findings}


def test_a_database_of_another_version_is_told(
    connection: psycopg.Connection[Any], database_url: str
) -> None:
    """A newer one has been here."""
    connection.execute("UPDATE billing.alembic_version SET version_num = '9999'")
    assert "9999" in one_of(checked(DATABASE_URL=database_url, **DOWN), "schema").text


def test_a_database_that_cannot_be_reached_is_one_finding() -> None:
    """The sources are looked at all the same."""
    report = checked(DATABASE_URL="postgresql://billing:hunter2@127.0.0.1:1/account", **DOWN)
    (only,) = [finding for finding in report.findings if finding.area == "database"]
    assert (only.name, only.state, report.outcome) == ("connection", "failed", "unreachable")
    assert "hunter2" not in only.text
    assert any(finding.area == "source" for finding in report.findings)


def test_a_database_that_does_not_exist_is_the_configurations_fault(database_url: str) -> None:
    """The server answers, and says so."""
    report = checked(DATABASE_URL=f"{database_url}&dbname=mars", **DOWN)
    assert report.outcome == "configuration"
    assert 'database "mars" does not exist' in one_of(report, "settings").text


def test_a_broken_connection_string_is_the_configurations_fault() -> None:
    """Without a word of it."""
    report = checked(DATABASE_URL="postgresql://u:hunter2@[broken/db", **DOWN)
    found = one_of(report, "settings")
    assert (report.outcome, found.state) == ("configuration", "failed")
    assert "hunter2" not in found.text


def test_without_a_database_or_a_source_there_is_nothing_to_do(database_url: str) -> None:
    """Both are configuration errors."""
    for variables in (DOWN, {"DATABASE_URL": database_url}):
        report = checked(**variables)
        assert (report.outcome, one_of(report, "settings").state) == ("configuration", "failed")


def test_a_source_that_is_unknown_is_wrong_usage(database_url: str) -> None:
    """Before anything is looked at."""
    with pytest.raises(UsageError, match="unknown source mars"):
        checked("mars", DATABASE_URL=database_url, **DOWN)


def test_every_setting_is_shown_with_its_origin_and_without_secrets(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is secret is masked."""
    monkeypatch.setenv("DSN", database_url)
    report = checked(
        BILLING_DATABASE_URL_REF="env:DSN",
        DSN=database_url,
        INTERNAL_SERVICE_TOKEN="hunter2hunter2",
        PRICE_PER_BYTE="1e-12",
        BILLING_PEAK_HOURS="18:00-23:30",
        **DOWN,
    )
    found = {finding.name: f"{finding.state} {finding.text}" for finding in report.findings}
    assert found["database_url"] == "ok *** (environment, env:DSN)"
    assert found["internal_service_token"] == "ok *** (INTERNAL_SERVICE_TOKEN in the environment)"
    assert found["price_per_byte"] == "ok 0.000000000001 (PRICE_PER_BYTE in the environment)"
    assert found["charge_first_snapshot"] == "ok false (default)"
    assert found["peak_hours"].startswith("ok 18:00-23:30 ")
    assert found["sources"].startswith("ok 1 enabled, 0 disabled")
    assert "hunter2" not in repr(report)


def test_a_file_with_a_secret_that_everybody_can_read_is_a_warning(
    database_url: str, tmp_path: Path
) -> None:
    """The configuration itself, and what it refers to."""
    token, config = tmp_path / "token", tmp_path / "billing.toml"
    token.write_text("hunter2hunter2hunter2")
    config.write_text(
        f'database_url = "{database_url}"\ninternal_service_token_ref = "file:{token}"\n'
    )
    told = "can be read by every user of this machine"
    expected = {
        0o644: [
            f"{config}, which holds database_url, {told}",
            f"the token file {token} {told}",
        ],
        0o640: [],
    }
    for mode, warnings in expected.items():
        token.chmod(mode)
        config.chmod(mode)
        report = checked(BILLING_CONFIG=str(config), **DOWN)
        assert [
            finding.text for finding in report.findings if finding.name == "secrecy"
        ] == warnings


def test_a_token_that_several_sources_are_sent_is_a_warning(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The default token, or the same one under two names; short ones are named too."""
    sources = [
        {"source_id": one, "base_url": f"http://127.0.0.1:{port}", "credential_ref": ref}
        for one, port, ref in (("jp-1", 1, None), ("us-1", 2, "env:US"), ("de-1", 3, "env:DE"))
    ]
    settings = {"DATABASE_URL": database_url, "BILLING_ALLOW_ZERO_PRICE": "true"}
    monkeypatch.setenv("US", "a-token-of-many")
    monkeypatch.setenv("DE", "own")
    settings["INTERNAL_SERVICE_TOKEN"] = "a-token-of-many"
    report = checked(EXPORTER_SOURCES_JSON=json.dumps(sources), **settings)
    (found,) = (finding for finding in report.findings if finding.name == "tokens")
    assert (found.state, found.text.partition(":")[0]) == (
        "warning",
        "jp-1, us-1 are sent the same token",
    )


def test_a_source_is_held_against_what_is_stored(
    connection: psycopg.Connection[Any], job_url: str
) -> None:
    """Its node, its contract, and how far it was collected from."""
    connection.execute(
        """
        INSERT INTO billing.sources
               (source_id, env, node_id, stored_node_id, contract, first_snapshot_at, watermark)
        VALUES ('old', 'prod', 'jp-1.svc.plus', 'prod:jp-1.svc.plus', 'window', now(), now()),
               ('us-1', 'prod', 'us-1.svc.plus', 'prod:us-1.svc.plus', 'latest',
                now() - interval '1 day', now() - interval '1 day')
        """
    )
    start = datetime.now(UTC) - timedelta(minutes=3)
    fleet = Fleet(seed=1, start=start)
    for source_id in ("jp-1", "us-1"):
        fleet.add_node(source_id).run(start + timedelta(minutes=3))
    with serve(fleet) as running:
        report = checked(DATABASE_URL=job_url, EXPORTER_SOURCES_JSON=json.dumps(running.sources()))
    told = {
        (one.source_id, one.name): f"{one.state} {one.text}"
        for one in told_of(report, "source")
        if one.state != "ok"
    }
    assert told.keys() == {("jp-1", "identity"), ("us-1", "contract"), ("us-1", "history")}
    assert "belongs to source 'old'" in told["jp-1", "identity"]
    assert told["us-1", "contract"] == "warning window, but it was latest when last collected from"
    assert "not as far as what was last collected" in told["us-1", "history"]


def test_nothing_is_written(connection: psycopg.Connection[Any], job_url: str) -> None:
    """What a server can do is tried on temporary objects, in a transaction that is rolled back."""
    before = everything(connection)
    report = checked(DATABASE_URL=job_url, **DOWN)
    assert {one.state for one in told_of(report, "database")} == {"ok"}
    assert everything(connection) == before


def test_a_server_that_lacks_a_feature_is_refused(
    empty_database_url: str,
) -> None:
    """With what the feature is for; a run would fail, or do without a guard."""
    with psycopg.connect(empty_database_url, autocommit=True) as connection:
        connection.execute("DROP EXTENSION plpgsql")
    report = checked(DATABASE_URL=empty_database_url, **DOWN)
    found = one_of(report, "server features")
    assert found.text.startswith("triggers FOR EACH STATEMENT, ENABLE ALWAYS: not as in PostgreSQL")
    assert found.text.endswith("evidence is append-only")
    assert (found.state, report.outcome) == ("failed", "configuration")


def test_a_database_in_which_nothing_can_be_written_is_refused(
    connection: psycopg.Connection[Any], job_url: str
) -> None:
    """A default of the database; every job would fail for it."""
    name = sql.Identifier(connection.info.dbname)
    connection.execute(
        sql.SQL("ALTER DATABASE {} SET default_transaction_read_only = on").format(name)
    )
    found = one_of(checked(DATABASE_URL=job_url, **DOWN), "server features")
    assert (found.state, "default_transaction_read_only" in found.text) == ("failed", True)


def test_a_server_older_than_postgresql_13_is_refused() -> None:
    """None can be had here: its version is what is decided on."""
    (found,) = version_findings(12)
    assert (found.state, found.text) == (
        "failed",
        "PostgreSQL 12 is too old: 13 is the oldest",
    )
    assert version_findings(13) == ()


@pytest.mark.parametrize("role", ["PUBLIC", "pg_monitor"])
def test_roles_that_can_create_objects_in_public_are_warned_of(
    connection: psycopg.Connection[Any], database_url: str, job_url: str, role: str
) -> None:
    """Both by `check` and by `migrate`, with the statement that ends it."""
    assert migrate(database_url, check=True).warnings == ()
    connection.execute(f"GRANT CREATE ON SCHEMA public TO {role}".encode())
    finding = one_of(checked(DATABASE_URL=job_url, **DOWN), "schema public")
    assert (finding.state, finding.text[: len(role)]) == ("warning", role)
    assert finding.text.endswith(f"REVOKE CREATE ON SCHEMA public FROM {role};")
    assert migrate(database_url, check=True).warnings == (finding.text,)
    assert migrate(database_url).warnings == (finding.text,)


def checked(*source_ids: str, **variables: str) -> CheckReport:
    """Return what a check says under an environment of these variables."""
    return check(load_settings(None, variables), "4711", source_ids)


def told_of(report: CheckReport, area: str) -> list[Finding]:
    """Return the findings of an area, without clocks: a machine that stalls looks like theirs."""
    return [
        finding for finding in report.findings if finding.area == area and finding.name != "clock"
    ]


def one_of(report: CheckReport, name: str) -> Finding:
    """Return the one finding of that name that is not about a source."""
    (only,) = [
        finding for finding in report.findings if finding.name == name and finding.area != "source"
    ]
    return only


def test_quota_states_that_are_replicated_are_a_warning(
    connection: psycopg.Connection[Any], job_url: str
) -> None:
    """Balances of two servers overwrite each other; the other tables may be published."""
    connection.execute("CREATE PUBLICATION facts FOR TABLE public.traffic_minute_buckets")
    report = checked(DATABASE_URL=job_url, **DOWN)
    assert "replication" not in {finding.name for finding in report.findings}

    connection.execute("CREATE PUBLICATION money FOR TABLE public.account_quota_states")
    found = one_of(checked(DATABASE_URL=job_url, **DOWN), "replication")
    assert found.state == "warning"
    assert found.text.startswith(
        "public.account_quota_states is replicated by publication money: if other servers write"
    )
    assert "let one server write quota states" in found.text


def test_quota_states_that_are_written_by_a_subscription_are_a_warning(
    connection: psycopg.Connection[Any], job_url: str
) -> None:
    """Published and subscribed: that is replication in both directions."""
    connection.execute(
        "CREATE PUBLICATION money FOR TABLE public.account_quota_states;"
        "CREATE SUBSCRIPTION others CONNECTION 'dbname=none' PUBLICATION money"
        " WITH (connect = false, slot_name = NONE, enabled = false);"
        "INSERT INTO pg_subscription_rel (srsubid, srrelid, srsubstate)"
        " SELECT oid, 'public.account_quota_states'::regclass, 'r' FROM pg_subscription"
    )
    found = one_of(checked(DATABASE_URL=job_url, **DOWN), "replication")
    connection.execute("DROP SUBSCRIPTION others")

    assert "publication money; subscription others: conflicting balances" in found.text


@pytest.mark.parametrize("is_readable", [True, False])
def test_quota_states_in_a_set_of_pglogical_are_a_warning(
    connection: psycopg.Connection[Any], job_url: str, databases: Databases, *, is_readable: bool
) -> None:
    """Where the catalog can't be read, the tables may be in it."""
    connection.execute(
        "CREATE SCHEMA pglogical; CREATE TABLE pglogical.replication_set_table"
        " (set_id oid, set_reloid regclass)"
    )
    if is_readable:
        grant = (
            "GRANT USAGE ON SCHEMA pglogical TO {0};"
            "GRANT SELECT ON pglogical.replication_set_table TO {0}"
        )
        connection.execute(sql.SQL(grant).format(sql.Identifier(databases.job_role)))
        report = checked(DATABASE_URL=job_url, **DOWN)
        assert "replication" not in {finding.name for finding in report.findings}
        connection.execute(
            "INSERT INTO pglogical.replication_set_table VALUES (1, 'public.account_quota_states')"
        )

    found = one_of(checked(DATABASE_URL=job_url, **DOWN), "replication")

    assert "replicated by pglogical: conflicting balances" in found.text


def everything(connection: psycopg.Connection[Any]) -> list[Any]:
    """Return the objects of the database, and the rows of each table."""
    tables = connection.execute(
        "SELECT nspname, relname FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace"
        " WHERE relkind = 'r' AND nspname IN ('billing', 'public')"
    ).fetchall()
    names = [("pg_catalog", name) for name in ("pg_class", "pg_proc", "pg_trigger")]
    names += [(row["nspname"], row["relname"]) for row in tables]
    query = "SELECT md5(string_agg(one::text, '' ORDER BY one::text)) FROM {} AS one"
    return [
        connection.execute(sql.SQL(query).format(sql.Identifier(*name))).fetchone()
        for name in names
    ]
