"""Every exit code of the contract, each with what leads to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest

from billing_cli.database.sources import try_lock_sources
from tests.cli.command import billing
from tests.integration.jobs.faults import refuse_some_times

if TYPE_CHECKING:
    from tests.cli.command import Site

JOBS = pytest.mark.parametrize("job", ["collect", "catch-up", "reconcile"])

NOBODY = "postgresql://postgres@127.0.0.1:1/account"
SETTINGS = {
    "EXPORTER_SOURCES_JSON": '[{"source_id": "jp-1", "base_url": "http://127.0.0.1:1"}]',
    "PRICE_PER_BYTE": "1e-9",
}
ON_THE_DATABASE = (
    "collect",
    "catch-up",
    "reconcile",
    "status",
    "usage",
    "audit",
    "explain 11111111-1111-1111-1111-111111111111",
    "held list",
    "streams",
    "suspend",
    "verify",
)


def test_0_where_nothing_is_new(site: Site) -> None:
    """A run that comes too often has nothing to do, which is fine."""
    site.has_two_nodes()
    first = site.billing("collect", "--json")
    second = site.billing("collect", "--json")
    assert (first.code, second.code) == (0, 0)
    assert first.result["written_minutes"] > 0
    assert second.result["written_minutes"] == 0
    site.world.assert_all_is_billed()


def test_1_where_the_run_failed(site: Site) -> None:
    """The database refuses: nothing is stored, and the reason is one line."""
    site.has_two_nodes()
    refuse_some_times(site.world, "XX000", times=9)
    finished = site.billing("collect")
    assert (finished.code, finished.stdout) == (1, "")
    assert finished.stderr.splitlines()[-1] == "Error: database: simulated"
    told = site.billing("collect", "--json").result
    assert told["error"] == {"code": "database_failed", "message": "database: simulated"}
    assert site.world.billed_bytes() == (0, 0)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("collect", "--source", "nobody"), "unknown source nobody; configured: jp-1, us-1"),
        (("collect", "--sources", "jp-1"), "No such option"),
        (("collect", "jp-1"), "unexpected extra argument"),
        (("collekt",), "No such command"),
        (("--log-level", "loud", "collect"), "is not one of"),
        (("catch-up", "--since", "last week"), "is not an RFC 3339 time with a zone"),
        (("catch-up", "--until", "2026-04-08T12:00:00"), "is not an RFC 3339 time with a zone"),
        (
            ("catch-up", "--since", "2026-04-08T12:01:00Z", "--until", "2026-04-08T12:00:00Z"),
            "--since is after --until",
        ),
        (("migrate", "--check", "--sql"), "exclude each other"),
        (("status", "--max-lag", "-1"), "is not in the range"),
    ],
    ids=" ".join,
)
def test_2_where_the_usage_is_wrong(site: Site, arguments: tuple[str, ...], reason: str) -> None:
    """The last line of stderr says what it is; stdout stays empty."""
    site.has_two_nodes()
    finished = site.billing(*arguments)
    assert finished.code == 2
    assert finished.stdout == ""
    assert reason in " ".join(finished.stderr.split())


def test_a_database_url_of_services_in_go_is_used(site: Site) -> None:
    """With a warning that names what is ignored; a misspelt parameter is refused."""
    site.has_two_nodes()
    url = site.world.database_url
    mark = "&" if "?" in url else "?"
    site.extra["DATABASE_URL"] = f"{url}{mark}pool_max_conns=10&TimeZone=Asia%2FShanghai"
    finished = site.billing("collect")
    assert finished.code == 0
    assert "are ignored: pool_max_conns, TimeZone" in finished.stderr
    site.extra["DATABASE_URL"] = f"{url}{mark}pool_max_cons=10"
    assert site.billing("status").code == 78


def test_3_where_status_sees_what_needs_a_look(site: Site) -> None:
    """A source that nothing was collected from yet; 0 once it is."""
    site.has_two_nodes()
    assert site.billing("status").code == 3
    assert site.billing("collect").code == 0
    assert site.billing("status").code == 0


@pytest.mark.parametrize("command", [*ON_THE_DATABASE, "migrate"])
def test_69_where_the_database_cannot_be_reached(command: str) -> None:
    """Nobody listens at that port."""
    finished = billing(*command.split(), "--json", environment=SETTINGS | {"DATABASE_URL": NOBODY})
    assert (finished.code, finished.result["status"]) == (69, "error")
    assert finished.result["error"]["message"].startswith("database: connection")


@JOBS
def test_69_where_no_selected_source_can_be_reached(site: Site, job: str) -> None:
    """The one that is named is down; the other one does not matter."""
    site.has_two_nodes()
    site.world.run_unchecked(site.world.at(4))
    site.world.running["us-1"].refused = True
    finished = site.billing(job, "--source", "us-1", "--json")
    assert (finished.code, finished.result["status"]) == (69, "error")


@JOBS
def test_75_where_the_selected_source_is_held(site: Site, job: str) -> None:
    """The other one is not asked for."""
    site.has_two_nodes()
    site.world.run_unchecked(site.world.at(4))
    with psycopg.connect(site.world.database_url) as other:
        try_lock_sources(other, ["us-1"])
        finished = site.billing(job, "--source", "us-1", "--json")
    assert (finished.code, finished.result["status"]) == (75, "busy")


@pytest.mark.parametrize("command", ON_THE_DATABASE)
def test_78_where_the_schema_is_missing(empty_database_url: str, command: str) -> None:
    """It says what to run."""
    environment = SETTINGS | {"DATABASE_URL": empty_database_url}
    finished = billing(*command.split(), environment=environment)
    assert finished.code == 78
    assert finished.stderr.splitlines()[-1] == (
        "Error: the database has no billing tables yet; run `billing migrate`"
    )


def test_78_where_a_shared_table_was_lost(site: Site, database_url: str) -> None:
    """Migrations do not make it again, so the next step is another one."""
    site.has_two_nodes()
    with psycopg.connect(database_url) as owner:
        owner.execute("DROP TABLE public.account_quota_states")
    finished = site.billing("collect")
    assert finished.code == 78
    *_, line = finished.stderr.splitlines()
    assert "public.account_quota_states" in line
    assert line.endswith(
        "the tables in public belong to accounts.svc.plus: restore what is missing"
    )


DISABLED = '[{"source_id": "a", "base_url": "https://a.test", "enabled": false}]'


@pytest.mark.parametrize(
    ("variable", "value", "reason"),
    [
        ("DATABASE_URL", "", "DATABASE_URL is not set"),
        ("DATABASE_URL", "mysql://db", "DATABASE_URL"),
        ("EXPORTER_SOURCES_JSON", "[]", "no exporter source is configured"),
        ("EXPORTER_SOURCES_JSON", DISABLED, "every configured source is disabled"),
        ("EXPORTER_SOURCES_JSON", "[{", "EXPORTER_SOURCES_JSON (environment): not JSON"),
        ("PRICE_PER_BYTE", "cheap", "PRICE_PER_BYTE (environment)"),
        ("BILLING_CONFIG", "/nowhere.toml", "/nowhere.toml"),
    ],
)
def test_78_where_the_configuration_is_wrong(
    job_url: str, variable: str, value: str, reason: str
) -> None:
    """One line names the key."""
    environment = SETTINGS | {"DATABASE_URL": job_url, variable: value}
    finished = billing("collect", environment=environment)
    assert finished.code == 78
    assert reason in finished.stderr.splitlines()[-1]
    assert "Traceback" not in finished.stderr


@pytest.mark.parametrize("command", ["collect", "catch-up", "reconcile", "status"])
def test_78_with_a_line_for_each_of_several_problems(command: str) -> None:
    """Below a first one that counts them."""
    finished = billing(command, environment={"PRICE_PER_BYTE": "abc", "BILLING_PAGE_LIMT": "5"})
    assert finished.code == 78
    first, *problems = finished.stderr.splitlines()
    assert first == "Error: 2 problems in the configuration:"
    assert [line.split()[0] for line in problems] == ["PRICE_PER_BYTE", "BILLING_PAGE_LIMT"]
