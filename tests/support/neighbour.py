"""What accounts.svc.plus writes into the shared rows, as its sources show."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from decimal import Decimal

    import psycopg

ADD_NEWER_COLUMNS = """
ALTER TABLE public.account_quota_states
  ADD arrears_since timestamptz, ADD period_start timestamptz, ADD period_end timestamptz
"""

READ_STATE = """
SELECT remaining_included_quota, current_balance, arrears, throttle_state, suspend_state
  FROM public.account_quota_states WHERE account_uuid = %s
"""

WRITE_STATE = """
UPDATE public.account_quota_states
   SET remaining_included_quota = %s, current_balance = %s + %s, arrears = %s,
       throttle_state = %s, suspend_state = %s
 WHERE account_uuid = %s
"""

ADD_ROW = """
INSERT INTO public.billing_ledger
       (id, account_uuid, bucket_start, bucket_end, entry_type, rated_bytes, amount_delta,
        balance_after)
VALUES (gen_random_uuid(), %s, now(), now(), %s, 0, %s, 0)
"""


def add_row(
    connection: psycopg.Connection[Any], account: str, amount: Decimal, kind: str = "topup"
) -> None:
    """Write the ledger row of a top-up or an adjustment, without touching the balance."""
    connection.execute(ADD_ROW, (account, kind, amount))


def add_to_balance(connection: psycopg.Connection[Any], account: str, amount: Decimal) -> None:
    """Change a balance, without a ledger row."""
    connection.execute(
        "UPDATE public.account_quota_states SET current_balance = current_balance + %s"
        " WHERE account_uuid = %s",
        (amount, account),
    )


@contextmanager
def stale_write(
    connection: psycopg.Connection[Any], account: str, amount: Decimal | int = 0
) -> Iterator[None]:
    """Read the whole row, let the block happen, write the row back with `amount` on top."""
    row = connection.execute(READ_STATE, (account,)).fetchone()
    assert row is not None
    yield
    quota, balance, *flags = row
    connection.execute(WRITE_STATE, (quota, balance, amount, *flags, account))
