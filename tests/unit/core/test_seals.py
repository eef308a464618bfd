"""What leaves hash beyond the test vectors: sums of a day, its order, and when seals are booked."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from hashlib import sha256
from zlib import crc32

import pytest

from billing_cli.core.canonical import charge_line
from billing_cli.core.model import BucketKey, Charge
from billing_cli.core.seals import (
    AccountDay,
    BookingDays,
    LineDigest,
    Seal,
    canonical_json,
    is_cut,
    money_text,
)

NOON = datetime(2026, 4, 8, 12, 0, tzinfo=UTC)
ACCOUNT = "11111111-1111-1111-1111-111111111111"
FIRST = date(2026, 4, 8)


def line(
    *,
    region: str = "jp",
    at: datetime = NOON,
    sizes: tuple[int, int] = (1, 10),
    amount: str = "-0.00000001",
    balance: str = "5",
) -> bytes:
    """Return the line of a charge."""
    charge = Charge(
        ledger_id="22222222-2222-2222-2222-222222222222",
        key=BucketKey(at, "prod:jp-1", ACCOUNT, region, "xhttp"),
        included_bytes=sizes[0],
        rated_bytes=sizes[1],
        price_per_byte=Decimal("1E-9"),
        multiplier=Decimal(1),
        amount_delta=Decimal(amount),
        quota_before=0,
        balance_before=Decimal(balance),
        balance_after=Decimal(balance) + Decimal(amount),
    )
    return charge_line(charge, "v1").encode()


def test_an_accounts_day_is_summed_up_by_entry_and_as_a_whole() -> None:
    """Bytes and money; its hash is over the lines in the order in which they come."""
    lines = [
        line(region="b", sizes=(1, 10), amount="-0.000000010"),
        line(region="a", sizes=(2, 20), amount="-0.000000020"),
        line(region="b", sizes=(4, 40), amount="-0.000000040"),
        line(region="a", at=NOON + timedelta(days=1), sizes=(0, -5), amount="0.000000005"),
    ]
    day = AccountDay(ACCOUNT, FIRST)
    for number, one in enumerate(lines):
        day.add(one, (7, number))
    content = day.content()

    shown = ("usage_day", "region", "charges", "included_bytes", "rated_bytes", "amount")
    assert [tuple(entry[key] for key in shown) for entry in content["entries"]] == [
        ("2026-04-08", "a", 1, 2, 20, "-0.000000020"),
        ("2026-04-08", "b", 2, 5, 50, "-0.000000050"),
        ("2026-04-09", "a", 1, 0, -5, "0.000000005"),
    ]
    assert (content["charges"], content["included_bytes"], content["rated_bytes"]) == (4, 7, 65)
    assert content["amount"] == "-0.000000065"
    assert content["charges_sha256"] == sha256(b"".join(lines)).hexdigest()


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_a_days_balances_are_those_around_all_of_its_charges(order: tuple[int, ...]) -> None:
    """In the order in which they were booked, whatever order they are read in."""
    booked = [
        (line(balance="5", amount="-1"), (3, 9)),
        (line(balance="4", amount="-2"), (4, 0)),
        (line(balance="2", amount="-0.5"), (4, 1)),
    ]
    day = AccountDay(ACCOUNT, FIRST)
    for place in order:
        day.add(*booked[place])
    content = day.content()
    assert (content["balance_before"], content["balance_after"]) == ("5.000000000", "1.500000000")


def test_the_first_of_two_charges_at_one_place_tells_the_balances() -> None:
    """No two have the same place in the database; read from a file, the first one counts."""
    day = AccountDay(ACCOUNT, FIRST)
    day.add(line(balance="5", amount="-1"), (3, 0))
    day.add(line(balance="9", amount="-1"), (3, 0))
    content = day.content()
    assert (content["balance_before"], content["balance_after"]) == ("5.000000000", "4.000000000")


def test_a_day_without_a_charge_has_no_content() -> None:
    """No leaf is made for an account that booked nothing."""
    with pytest.raises(ValueError, match=r"^no charge was booked$"):
        AccountDay(ACCOUNT, FIRST).content()


def test_a_line_digest_tells_which_line_was_changed() -> None:
    """4 bytes for each line, and the hash of all."""
    digest = LineDigest()
    assert (digest.count, digest.checks, digest.sha256) == (0, b"", sha256().digest())
    assert [digest.add(one) for one in ("a\n", "é\n")] == ["a\n", "é\n"]
    assert digest.count == 2
    assert digest.sha256 == sha256("a\né\n".encode()).digest()
    checks = [crc32(one.encode()).to_bytes(4, "big") for one in ("a\n", "é\n")]
    assert digest.checks == b"".join(checks)


def seal(first_minute: int, created_minute: int) -> Seal:
    """Return a seal by its first bucket, and by when it was made."""
    first, created = (NOON + timedelta(minutes=at) for at in (first_minute, created_minute))
    return Seal("run", 1, "collect", created, first, first, 1, b"", 0, b"")


@pytest.mark.parametrize(
    ("first", "created", "expected"),
    [(4, 10, True), (5, 10, False), (6, 9, False), (4, 11, False), (4, 9, True)],
)
def test_a_prune_cuts_earlier_seals_of_earlier_minutes(
    first: int, created: int, *, expected: bool
) -> None:
    """It keeps minutes from 5 on, and was made at 10: what was written later is whole."""
    assert is_cut(seal(first, created), seal(5, 10)) is expected


@pytest.mark.parametrize(
    ("days", "expected"),
    [
        pytest.param("8 8 8. 9 9. 10", "yes yes yes yes yes yes", id="one after the other"),
        pytest.param("8 9", "yes no", id="a day begins before the last one ended"),
        pytest.param("9 9. 8", "yes yes no", id="back to an earlier day"),
        pytest.param("8 8. 8", "yes yes no", id="after its end"),
        pytest.param("8 8. 8.", "yes yes no", id="ended twice"),
        pytest.param("8 9.", "yes no", id="the end of another day"),
        pytest.param("8. 9 9.", "yes yes yes", id="an end without a seal"),
        pytest.param("8 10 8", "yes no yes", id="the day stays what it was"),
    ],
)
def test_seals_are_booked_day_after_day(days: str, expected: str) -> None:
    """A dot marks the leaf that ends a day."""
    booked = BookingDays()
    found = [
        booked.is_right(date(2026, 4, int(day.rstrip("."))), is_end=day.endswith("."))
        for day in days.split()
    ]
    assert found == [one == "yes" for one in expected.split()]


def test_json_is_the_same_to_the_byte_for_the_same_content() -> None:
    """Sorted, without white space, in UTF-8; what JSON has no number for is refused."""
    assert canonical_json({"b": [1, "é\n"], "a": None}) == '{"a":null,"b":[1,"é\\n"]}'.encode()
    with pytest.raises(ValueError, match="JSON"):
        canonical_json({"a": float("nan")})


@pytest.mark.parametrize(
    ("amount", "text"),
    [("-0", "0.000000000"), ("-1E-9", "-0.000000001"), ("12", "12.000000000")],
)
def test_money_has_nine_digits(amount: str, text: str) -> None:
    """Zero has no sign."""
    assert money_text(Decimal(amount)) == text
