"""What an audit says of a rightly billed database: that it is clean, and what else is so."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING
from uuid import UUID

import psycopg
import pytest

from billing_cli.core.model import DeltaPolicy
from billing_cli.core.rating import EXACT, NANO
from billing_cli.database.connecting import Database
from billing_cli.errors import UsageError
from billing_cli.features.audit import queries_amounts as audit_amounts
from billing_cli.features.audit.findings import NOTICES, VIOLATIONS, audit_object
from billing_cli.features.audit.job import audit
from billing_cli.features.audit.queries_chains import BROKEN_CHAINS
from billing_cli.jobs.context import JobContext, Tariff
from tests.integration.audit.full_story import kinds
from tests.integration.reconcile.conftest import START

if TYPE_CHECKING:
    from tests.integration.audit.full_story import FullStory

PLANTED_PRODUCTS = (
    "0.0000000005",
    "0.0000000015",
    "0.0000000025",
    "1.0000000005",
    "1.0000000005000000000000000001",
    "1.0000000014999999999999999999",
    "0.00000000049999999",
    "123456789012345678.9999999995",
    "0",
)


def test_a_story_with_everything_in_it_is_clean(billed: FullStory) -> None:
    """A restart, pending usage, a held and released delta, corrections: no violation, no notice."""
    report = billed.audit()

    assert kinds(report) == {}
    with psycopg.connect(billed.database_url) as connection:
        told = connection.execute(
            "SELECT array_agg(DISTINCT kind ORDER BY kind), max(reset_epoch)"
            "  FROM billing.usage_records"
        ).fetchone()
    assert told == (["correction", "delta", "pending", "released"], 1)


def test_no_record_is_compared_with_each_hour_that_has_gaps(billed: FullStory) -> None:
    """However little memory there is: a filter by a list that does not fit takes its square."""
    given = {"account": None, "since": "-infinity", "until": "infinity", "seed": 1}
    with psycopg.connect(billed.database_url) as connection:
        connection.execute("SET work_mem = '64kB'")
        plan = connection.execute(f"EXPLAIN {BROKEN_CHAINS}".encode(), given).fetchall()
    filters = [line for (line,) in plan if "Filter:" in line]
    assert any("Semi Join" in line for (line,) in plan)
    assert [line for line in filters if "reset_epoch = " in line and "SubPlan" in line] == []


def test_each_step_of_the_story_leaves_a_clean_database(story: FullStory) -> None:
    """What is held, pending or late at the moment is no violation."""
    story.node.run(story.minutes(5), poll_seconds=15)
    story.node.flow(story.streams[0], 10**12, 0)
    story.node.run(story.minutes(8), poll_seconds=15)
    story.node.restart_xray(story.minutes(8))
    story.node.run(story.minutes(12), poll_seconds=15)
    for minute in range(1, 13):
        story.catch_up(story.minutes(minute))
        assert kinds(story.audit()) == {}


def test_an_empty_database_is_clean(story: FullStory) -> None:
    """Where nothing was billed yet, nothing is wrong."""
    report = story.audit()

    assert kinds(report) == {}
    assert report.totals.recorded_bytes == 0


def test_a_restart_that_nothing_followed_is_no_violation(story: FullStory) -> None:
    """The checkpoint stands at zero in an epoch that has no record yet."""
    story.node.run(story.minutes(3), poll_seconds=60)
    story.node.restart_xray(story.minutes(3))
    story.node.snapshot(story.minutes(3) + timedelta(seconds=1))
    story.node.snapshot(story.minutes(4))
    story.catch_up(story.minutes(6))
    with psycopg.connect(story.database_url) as connection:
        restarted = connection.execute(
            "SELECT count(*) FROM billing.streams WHERE reset_epoch = 1 AND uplink_total = 0"
        ).fetchone()
    assert restarted != (0,)

    assert kinds(story.audit()) == {}


def test_the_sums_are_those_of_the_tables(billed: FullStory) -> None:
    """Bytes in records, buckets and charges agree; money is what left the balances."""
    report = billed.audit()

    totals = report.totals
    assert totals.recorded_bytes == totals.bucket_bytes > 0
    assert totals.included_bytes + totals.rated_bytes == totals.bucket_bytes
    assert totals.included_bytes == len(billed.users) * billed.quota
    assert totals.amount == -(totals.rated_bytes * billed.price)
    for account in report.accounts:
        assert account.opening_balance == 5
        assert account.current_balance == 5 + account.figures.amount
    assert sum(one.figures.amount for one in report.accounts) == totals.amount


def test_one_account_is_audited_alone(billed: FullStory) -> None:
    """What is wrong with another one does not show."""
    harmed, other = billed.users[0].uuid, billed.users[1].uuid
    with psycopg.connect(billed.database_url) as connection:
        connection.execute(
            "UPDATE public.traffic_minute_buckets SET total_bytes = total_bytes + 1"
            " WHERE account_uuid = %s",
            (harmed,),
        )

    wrong = billed.audit(account=harmed)
    right = billed.audit(account=other)

    assert wrong.violations > 0
    assert [account.account_uuid for account in wrong.accounts] == [harmed]
    assert kinds(right) == {}
    assert right.rows["accounts"] == 1
    assert 0 < right.totals.recorded_bytes < wrong.totals.recorded_bytes


def test_an_account_may_be_named_by_its_proxy_uuid(billed: FullStory) -> None:
    """Operators see proxy uuids in the exporters' own pages."""
    report = billed.audit(account=billed.users[0].proxy_uuid)

    assert report.account_uuid == billed.users[0].uuid


def test_an_unknown_account_is_a_usage_error(billed: FullStory) -> None:
    """One clear line, that holds the uuid."""
    nobody = billed.fleet.new_uuid()

    with pytest.raises(UsageError, match=f"unknown account {nobody}"):
        billed.audit(account=nobody)


def test_findings_beyond_the_limit_are_counted(billed: FullStory) -> None:
    """Each kind is listed up to the limit."""
    billed.execute("UPDATE public.traffic_minute_buckets SET total_bytes = total_bytes + 1")

    report = billed.audit(limit=2)

    assert len(report.findings) == 2
    assert len(report.accounts) == 2
    assert report.counts["bucket_differs"] == report.rows["buckets"] > 2
    assert sum(account.violations for account in report.accounts) > 2


def test_a_finding_names_the_row_and_both_figures(billed: FullStory) -> None:
    """Keys, what is there, and what should be there."""
    account = billed.users[0].uuid
    with psycopg.connect(billed.database_url) as connection:
        row = connection.execute(
            "UPDATE public.traffic_minute_buckets SET uplink_bytes = uplink_bytes + 1"
            " WHERE (account_uuid, bucket_start) = (SELECT account_uuid, min(bucket_start)"
            "  FROM public.traffic_minute_buckets WHERE account_uuid = %s GROUP BY 1)"
            " RETURNING bucket_start, uplink_bytes",
            (account,),
        ).fetchone()
    assert row is not None

    (finding,) = billed.audit().findings

    assert finding.account_uuid == account
    assert finding.keys == {
        "bucket_start": row[0],
        "node_id": "prod:jp-1.example",
        "line_code": "xhttp",
    }
    assert finding.expected == {"uplink_bytes": row[1] - 1}
    assert finding.found == {"uplink_bytes": row[1]}


def test_an_audit_sees_one_state_of_the_database(billed: FullStory) -> None:
    """What is committed while it runs is for the next one."""

    def harm(number: int, _count: int, _title: str) -> None:
        if number == 1:
            billed.execute("UPDATE public.traffic_minute_buckets SET total_bytes = 0")
            billed.execute("UPDATE public.billing_ledger SET amount_delta = 0")

    assert kinds(billed.audit(on_check=harm)) == {}
    assert billed.audit().violations > 0


def test_an_audit_takes_the_time_it_needs(billed: FullStory) -> None:
    """The limits that keep a run within its minute are not for audits."""
    database = Database(billed.database_url, statement_timeout_seconds=0.001, grace_seconds=0.001)
    context = JobContext(
        run_id=str(UUID(int=0)),
        clock=lambda: START,
        database=database,
        sources=(),
        tariff=Tariff(Decimal(0), 0, Decimal(0), "", "", None),
        deltas=DeltaPolicy(),
    )

    assert kinds(audit(context)) == {}


def test_an_audit_leaves_everything_as_it_was(billed: FullStory) -> None:
    """Every row is the same afterwards."""
    before = billed.facts()

    billed.audit()

    assert billed.facts() == before


@pytest.mark.parametrize("product", PLANTED_PRODUCTS)
def test_halves_are_rounded_to_the_even_neighbour(
    connection: psycopg.Connection[dict[str, object]], product: str
) -> None:
    """The database rounds as the money was rounded, to the last half nano."""
    start = audit_amounts.WRONG_AMOUNTS.index("CASE WHEN mod(")
    expression = audit_amounts.WRONG_AMOUNTS[start:].partition(" AS expected_amount")[0]

    row = connection.execute(
        f"SELECT {expression} AS rounded FROM (SELECT %s::numeric AS product) AS given".encode(),  # noqa: S608
        (product,),
    ).fetchone()

    assert row == {"rounded": Decimal(product).quantize(NANO, context=EXACT)}


def test_the_report_is_one_json_object(billed: FullStory) -> None:
    """Amounts are decimal strings, times are RFC 3339, every kind has its meaning."""
    billed.execute(
        "UPDATE public.billing_ledger SET amount_delta = -1;"
        "UPDATE public.account_quota_states SET current_balance = 0",
    )

    told = audit_object(billed.audit())

    assert (told["job"], told["status"], told["error"]) == ("audit", "violations", None)
    assert told["totals"]["violations"] == told["totals"]["by_kind"]["ledger_differs"]
    violation = told["violations"][0]
    assert violation["meaning"] == VIOLATIONS["ledger_differs"]
    assert violation["found"] == {"amount_delta": "-1"}
    assert violation["keys"]["bucket_start"].endswith("Z")
    assert {one["kind"] for one in told["notices"]} <= NOTICES.keys()
    assert told["accounts"][0]["opening_balance"] == "5.000000000"
