"""What is charged: quota first, then bytes times price times multiplier, rounded once."""

from __future__ import annotations

import hashlib
import uuid
from datetime import UTC, time, timedelta, timezone
from decimal import Decimal, Inexact, localcontext

import pytest

from billing_cli.core.model import MAX_TOTAL, Bucket, BucketKey, Price, StreamName
from billing_cli.core.peak import PeakHours
from billing_cli.core.prices import PriceList, ProfileRow, price_of
from billing_cli.core.rating import (
    EXACT,
    BilledUsage,
    adjustment_id,
    balance_of,
    buckets_of,
    is_balance,
    ledger_id,
    rate,
)
from tests.unit.core.stories import ALICE, ALICE_TCP, NOON, record
from tests.unit.core.tariffs import (
    ALICE_UUID,
    BOB_UUID,
    account,
    bucket,
    price,
)

NANO_PRICE = Decimal("1e-9")
KEY = bucket(1).key


def charged(total_bytes: int, per_byte: str, multiplier: str = "1") -> str:
    """Return what bytes cost an account without quota, as the ledger shows it."""
    rating = rate([bucket(total_bytes)], {ALICE_UUID: account(price(per_byte, multiplier))})
    return f"{rating.charges[0].amount_delta:f}"


def test_both_directions_are_charged() -> None:
    """A bucket's bytes are those sent and those received."""
    rating = rate([Bucket(KEY, 3, 4)], {ALICE_UUID: account(price("1"))})
    (charge,) = rating.charges
    assert charge.rated_bytes == 7
    assert (charge.entry_type, charge.adjusts, charge.reason) == ("traffic_charge", None, "")


def test_the_quota_is_used_before_the_balance() -> None:
    """Bytes within the quota are included, and only those beyond it are rated."""
    rating = rate(
        [bucket(60), bucket(60, minute=1), bucket(60, minute=2)],
        {ALICE_UUID: account(price("0.5"), quota=100, balance="7")},
    )
    assert [(charge.included_bytes, charge.rated_bytes) for charge in rating.charges] == [
        (60, 0),
        (40, 20),
        (0, 60),
    ]
    assert [charge.quota_before for charge in rating.charges] == [100, 40, 0]
    assert [charge.balance_before for charge in rating.charges] == [7, 7, -3]
    assert [charge.balance_after for charge in rating.charges] == [7, -3, -33]
    left = rating.accounts[ALICE_UUID]
    assert left.remaining_included_quota == 0
    assert left.current_balance == -33


def test_the_quota_is_used_in_key_order() -> None:
    """Whatever order the buckets come in, the earlier minute is covered first."""
    rating = rate(
        [bucket(60, minute=1), bucket(60)], {ALICE_UUID: account(price("0.5"), quota=100)}
    )
    assert [charge.key for charge in rating.charges] == [bucket(1).key, bucket(1, minute=1).key]
    assert [charge.rated_bytes for charge in rating.charges] == [0, 20]


def test_each_bucket_has_its_entry_also_where_the_quota_covers_it() -> None:
    """A charge of nothing is a fact as well: it says that the minute was rated."""
    rating = rate([bucket(5)], {ALICE_UUID: account(price("1"), quota=5)})
    (only,) = rating.charges
    assert (only.entry_type, only.rated_bytes) == ("traffic_charge", 0)
    assert only.amount_delta == 0


def test_a_negative_quota_includes_nothing() -> None:
    """Whatever another service left there, it is neither used nor made worse."""
    rating = rate([bucket(5)], {ALICE_UUID: account(price("1"), quota=-8)})
    assert rating.charges[0].rated_bytes == 5
    assert rating.accounts[ALICE_UUID].remaining_included_quota == -8


def test_accounts_pay_for_themselves() -> None:
    """One account's quota is of no use to another."""
    rating = rate(
        [bucket(10), bucket(10, account_uuid=BOB_UUID)],
        {
            ALICE_UUID: account(price("1"), quota=50),
            BOB_UUID: account(price("2"), account_uuid=BOB_UUID),
        },
    )
    by_account = {charge.key.account_uuid: charge.amount_delta for charge in rating.charges}
    assert by_account == {ALICE_UUID: 0, BOB_UUID: -20}
    assert rating.accounts[ALICE_UUID].remaining_included_quota == 40


def test_an_account_that_used_nothing_stays_as_it_is() -> None:
    """Accounts without buckets come back unchanged."""
    idle = account(price("1"), quota=3, balance="4")
    assert rate([], {ALICE_UUID: idle}).accounts == {ALICE_UUID: idle}


def test_a_price_of_a_nano_is_exact() -> None:
    """The smallest price that an amount can show is charged byte by byte."""
    assert charged(1, "1e-9") == "-0.000000001"
    assert charged(1_234_567_890, "1e-9") == "-1.234567890"


@pytest.mark.parametrize(("halves", "nanos"), [(1, 0), (3, 2), (5, 2), (7, 4), (9, 4), (11, 6)])
def test_halves_at_the_ninth_place_go_to_the_even_neighbour(halves: int, nanos: int) -> None:
    """Half-even rounding has no bias over many minutes."""
    assert charged(halves, "5e-10") == f"{Decimal(0) - nanos * NANO_PRICE:f}"


def test_an_amount_is_rounded_once() -> None:
    """1.5e-9 x 1.5 is 2.25e-9; rounding the product of the first two would make 3e-9 of it."""
    assert charged(1, "1.5e-9", "1.5") == "-0.000000002"


def test_more_than_half_is_rounded_up_however_far_behind_it_stands() -> None:
    """Digits beyond those of a double still decide."""
    assert charged(1, "2.50000000000000000000000000000000000001e-9") == "-0.000000003"


def test_huge_bytes_times_long_prices_stay_exact() -> None:
    """19 digits of bytes, 46 of a price and three times 17 of multipliers fit the precision."""
    per_byte, factor = "499999.1234567890123456789012345678901234567891", "1.2345678901234567"
    profile = ProfileRow(None, None, float(factor), float(factor), None, float(factor))
    never_peak = PeakHours((), UTC)
    paid = price_of(profile, PriceList(Decimal(per_byte)))
    assert isinstance(paid, Price)
    rating = rate(
        [Bucket(KEY, MAX_TOTAL, 0)],
        {ALICE_UUID: account(paid)},
        never_peak,
    )
    digits = int(per_byte.replace(".", "")) * int(factor.replace(".", "")) ** 3 * MAX_TOTAL
    shift = 10 ** (40 + 3 * 16 - 9)
    nanos, remainder = divmod(digits, shift)
    nanos += 2 * remainder > shift
    (only,) = rating.charges
    assert only.amount_delta.as_tuple() == (1, tuple(int(one) for one in str(nanos)), -9)
    assert only.balance_after == only.amount_delta


def test_the_longest_product_fits_the_precision() -> None:
    """All digits that a configured price, bytes and three doubles can have are kept."""
    longest_double = Decimal("9.9999999999999982")
    longest_price = Decimal("999999." + 40 * "9")
    assert float(longest_double) == 9.999999999999998
    context = EXACT.copy()
    context.traps[Inexact] = True
    with localcontext(context):
        product = MAX_TOTAL * longest_price * longest_double**3
    assert len(product.as_tuple().digits) == 19 + 46 + 3 * 17


@pytest.mark.parametrize("per_byte", ["0", "1e-12", "1"])
def test_nothing_charged_is_zero_without_a_sign(per_byte: str) -> None:
    """No price, a price too small to show, and bytes all included: each is 0, never "-0"."""
    quota = 1 if per_byte == "1" else 0
    rating = rate([bucket(1)], {ALICE_UUID: account(price(per_byte), quota=quota)})
    (only,) = rating.charges
    for amount in (only.amount_delta, only.balance_before, only.balance_after):
        assert not amount.is_signed()
        assert amount == 0


def test_peak_and_offpeak_count_only_where_peak_hours_are_configured() -> None:
    """Without peak hours, both multipliers are ignored."""
    paid = price("1", "2", peak="3", offpeak="0.5")
    noon_hour = PeakHours(((time(12, 0), time(12, 1)),), UTC)
    buckets = [bucket(10), bucket(10, minute=1)]
    alone = rate(buckets, {ALICE_UUID: account(paid)})
    assert [charge.multiplier for charge in alone.charges] == [2, 2]
    assert [charge.amount_delta for charge in alone.charges] == [-20, -20]
    peak = rate(buckets, {ALICE_UUID: account(paid)}, noon_hour)
    assert [charge.multiplier for charge in peak.charges] == [6, 1]
    assert [charge.amount_delta for charge in peak.charges] == [-60, -10]


def test_a_charges_id_is_what_the_older_writer_derives() -> None:
    """UUIDv5 in the OID namespace, here by hand: SHA-1, then version and variant bits."""
    oid_namespace = bytes.fromhex("6ba7b8129dad11d180b400c04fd430c8")
    name = "2026-04-08T12:00:00Z|prod:jp-1.svc.plus|11111111-1111-1111-1111-111111111111|jp|xhttp"
    digest = bytearray(
        hashlib.sha1(oid_namespace + name.encode(), usedforsecurity=False).digest()[:16]
    )
    digest[6] = digest[6] & 0x0F | 0x50
    digest[8] = digest[8] & 0x3F | 0x80
    assert ledger_id(KEY) == str(uuid.UUID(bytes=bytes(digest)))


def test_ids_are_name_based_uuids_whatever_the_bucket() -> None:
    """A run that is done again must find its own entries, and the older writer's, by their ids."""
    for minute in range(200):
        key = KEY._replace(bucket_start=NOON + timedelta(minutes=minute))
        stamp = f"{key.bucket_start:%Y-%m-%dT%H:%M:%SZ}"
        name = f"{stamp}|prod:jp-1.svc.plus|{ALICE_UUID}|jp|xhttp"
        charge_id = uuid.uuid5(uuid.NAMESPACE_OID, name)
        assert ledger_id(key) == str(charge_id)
        assert adjustment_id(key, minute) == str(uuid.uuid5(charge_id, f"adjustment|{minute}"))


def test_a_charges_id_names_the_minute_in_utc() -> None:
    """The zone in which a bucket's start happens to be written is no part of its id."""
    elsewhere = KEY._replace(bucket_start=NOON.astimezone(timezone(timedelta(hours=9))))
    assert ledger_id(elsewhere) == ledger_id(KEY)


def test_ids_are_as_different_as_their_buckets() -> None:
    """Each part of the key and each ordinal makes another id."""
    keys = [
        KEY,
        KEY._replace(bucket_start=NOON + timedelta(minutes=1)),
        KEY._replace(stored_node_id="jp-1.svc.plus"),
        KEY._replace(account_uuid=BOB_UUID),
        KEY._replace(region=""),
        KEY._replace(line_code=""),
    ]
    ids = [
        *(ledger_id(key) for key in keys),
        *(adjustment_id(key, ordinal) for key in keys for ordinal in (1, 2)),
    ]
    assert len(set(ids)) == len(ids)
    assert adjustment_id(KEY, 1) == adjustment_id(KEY, 1)


def test_records_of_one_line_and_minute_share_a_bucket() -> None:
    """Epochs, inbounds' samples and pending usage add up where the shared table has one row."""
    node = "prod:jp-1.svc.plus"
    usage = [
        BilledUsage(ALICE_UUID, node, "jp", record(ALICE, ("01:00", "01:10"), (5, 3), (6, 7))),
        BilledUsage(ALICE_UUID, node, "jp", record(ALICE_TCP, ("00:10", "01:00"), (0, 0), (7, 7))),
        BilledUsage(ALICE_UUID, node, "jp", record(ALICE, ("01:10", "01:20"), (0, 0), (2, 3), 1)),
        BilledUsage(BOB_UUID, node, "jp", record(ALICE, ("01:10", "01:20"), (0, 0), (1, 0))),
        BilledUsage(ALICE_UUID, node, "jp", record(ALICE, ("01:10", "00:50"), (0, 0), (4, 0))),
    ]
    minute = NOON + timedelta(minutes=1)
    assert buckets_of(usage) == [
        Bucket(BucketKey(NOON, node, ALICE_UUID, "jp", "xhttp"), 4, 0),
        Bucket(BucketKey(minute, node, ALICE_UUID, "jp", "tcp"), 7, 7),
        Bucket(BucketKey(minute, node, ALICE_UUID, "jp", "xhttp"), 3, 7),
        Bucket(BucketKey(minute, node, BOB_UUID, "jp", "xhttp"), 1, 0),
    ]


def test_buckets_of_one_line_come_in_the_order_of_accounts() -> None:
    """Whatever order their usage comes in: they are rated in parts, and parts follow each other."""
    accounts = sorted([ALICE_UUID, BOB_UUID])
    usage = [
        BilledUsage(one, "prod:jp-1", "", record(ALICE, ("01:00", "01:10"), (0, 0), (1, 1)))
        for one in reversed(accounts)
    ]
    assert [one.key.account_uuid for one in buckets_of(usage)] == accounts


def test_buckets_of_several_lines_come_by_account_first() -> None:
    """As their keys do: the line counts only where minute, node and account are the same."""
    first, second = sorted([ALICE_UUID, BOB_UUID])
    evidence = (("01:00", "01:10"), (0, 0), (1, 1))
    usage = [
        BilledUsage(account_uuid, "prod:jp-1", "", record(StreamName(tag, ALICE_UUID), *evidence))
        for account_uuid, tag in ((first, "ws"), (second, "tcp"), (first, "tcp"), (second, "ws"))
    ]
    assert [(one.key.account_uuid, one.key.line_code) for one in buckets_of(usage)] == [
        (first, "tcp"),
        (first, "ws"),
        (second, "tcp"),
        (second, "ws"),
    ]


def test_no_money_is_computed_with_a_balance_that_is_none() -> None:
    """A row may hold NULL."""
    assert not is_balance(None)
    with pytest.raises(ValueError, match=r"^a balance of NULL$"):
        balance_of(None)
