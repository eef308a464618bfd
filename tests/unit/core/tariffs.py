"""Short ways to write buckets, accounts and prices down."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

from billing_cli.core.model import Account, Bucket, BucketKey, Price
from billing_cli.core.prices import ProfileRow
from tests.unit.core.stories import NOON

ALICE_UUID = "11111111-1111-1111-1111-111111111111"
BOB_UUID = "22222222-2222-2222-2222-222222222222"

NO_PROFILE = ProfileRow()


def price(per_byte: str, multiplier: str = "1", *, peak: str = "1", offpeak: str = "1") -> Price:
    """Return a price from decimals in words."""
    return Price(Decimal(per_byte), Decimal(multiplier), Decimal(peak), Decimal(offpeak))


def account(
    paid: Price, *, quota: int = 0, balance: str = "0", account_uuid: str = ALICE_UUID
) -> Account:
    """Return an account, Alice's where not said."""
    return Account(account_uuid, quota, Decimal(balance), paid)


def bucket(
    total_bytes: int, *, minute: int = 0, account_uuid: str = ALICE_UUID, line_code: str = "xhttp"
) -> Bucket:
    """Return an account's bytes in a minute after noon."""
    start = NOON + timedelta(minutes=minute)
    key = BucketKey(start, "prod:jp-1.svc.plus", account_uuid, "jp", line_code)
    return Bucket(key, total_bytes, 0)
