"""The canonical line of each fact, whose bytes are hashed: these vectors never change."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import pytest

from billing_cli.core.canonical import (
    StoredUsage,
    charge_line,
    escaped,
    time_text,
    unescaped,
    usage_line,
)
from billing_cli.core.model import BucketKey, Charge, StreamName, Totals, UsageRecord

NOON = datetime(2026, 4, 8, 12, 0, tzinfo=UTC)
ACCOUNT = "11111111-1111-1111-1111-111111111111"
LEDGER_ID = "22222222-2222-2222-2222-222222222222"
RECORD = UsageRecord(
    StreamName("xhttp", ACCOUNT),
    NOON,
    3,
    NOON - timedelta(seconds=30),
    NOON + timedelta(microseconds=1),
    Totals(1, 2),
    Totals(10, 9_223_372_036_854_775_807),
)
CHARGE = Charge(
    ledger_id=LEDGER_ID,
    key=BucketKey(NOON, "prod:jp-1", ACCOUNT, "", "xhttp"),
    included_bytes=0,
    rated_bytes=1,
    price_per_byte=Decimal("3E-9"),
    multiplier=Decimal("1.50"),
    amount_delta=Decimal("-0.000000004"),
    quota_before=-5,
    balance_before=Decimal("0E-9"),
    balance_after=Decimal("-0.000000004"),
)


def test_the_line_of_a_usage_record() -> None:
    """Its key first, then its figures."""
    assert usage_line(StoredUsage(RECORD, 7, ACCOUNT, "correction", 2)) == (
        "2026-04-08T12:00:00.000000Z\t7\t2026-04-08T11:59:30.000000Z\t2\t"
        "2026-04-08T12:00:00.000001Z\t3\t1\t10\t2\t9223372036854775807\t"
        "11111111-1111-1111-1111-111111111111\tcorrection\n"
    )


def test_the_line_of_a_charge() -> None:
    """Money has no exponent, and what is missing has a mark of its own."""
    assert charge_line(CHARGE, "v1") == (
        "2026-04-08T12:00:00.000000Z\t11111111-1111-1111-1111-111111111111\t"
        "22222222-2222-2222-2222-222222222222\ttraffic_charge\t\\N\tprod:jp-1\t\txhttp\t0\t1\t"
        "0.000000003\t1.50\t-0.000000004\t-5\t0.000000000\tv1\t\n"
    )


def test_the_line_of_an_adjustment_names_what_it_adjusts() -> None:
    """In place of the mark for nothing."""
    assert charge_line(CHARGE._replace(adjusts=ACCOUNT), "v1").split("\t")[4] == ACCOUNT


def test_a_usage_record_is_a_delta_that_nobody_corrected() -> None:
    """Where nothing else is said."""
    fields = usage_line(StoredUsage(RECORD, 7, ACCOUNT)).rstrip("\n").split("\t")
    assert (fields[3], fields[11]) == ("0", "delta")


def test_texts_can_not_end_a_field_or_a_line() -> None:
    """What COPY escapes is escaped, and a text that looks like NULL is none."""
    assert escaped("a\tb\nc\rd\\N") == r"a\tb\nc\rd\\N"
    every = "a\\ \b\f\n\r\t\v \\N é"
    assert unescaped(escaped(every)) == every
    line = charge_line(CHARGE._replace(reason="two\nlines"), "v\t1")
    assert line.count("\n") == 1
    assert line.count("\t") == 16


@pytest.mark.parametrize(
    ("at", "text"),
    [
        (NOON.astimezone(timezone(timedelta(hours=9))), "2026-04-08T12:00:00.000000Z"),
        (datetime(1, 1, 1, tzinfo=UTC), "0001-01-01T00:00:00.000000Z"),
        (datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC), "9999-12-31T23:59:59.999999Z"),
    ],
)
def test_times_are_utc_with_microseconds(at: datetime, text: str) -> None:
    """Whatever zone they were read in."""
    assert time_text(at) == text
