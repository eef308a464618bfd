"""A small database that is rightly billed, written by hand and not by a biller."""

from __future__ import annotations

import uuid
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, LiteralString

import psycopg

from billing_cli.simulator.accounts import save_funds, save_users
from billing_cli.simulator.invariants import Books, Funds, read_books, violations
from billing_cli.simulator.traffic import Fleet
from tests.support.guards import without_guards

if TYPE_CHECKING:
    from collections.abc import Iterator

NODE = "prod:jp-1.svc.plus"
OPENING = Funds(Decimal(1), 25)
PRICE = Decimal("0.001")
MINUTE = timedelta(minutes=1)

Connection = psycopg.Connection[tuple[object, ...]]


@contextmanager
def planted_books(database_url: str) -> Iterator[Planted]:
    """Bill 30 and 3 bytes: 25 of them included, the rest at 0.001 each."""
    fleet = Fleet()
    node = fleet.add_node("jp-1")
    user = fleet.add_user()
    stream = node.add_stream(user.uuid, "xhttp")
    node.snapshot(fleet.start)
    node.flow(stream, 10, 20)
    node.snapshot(fleet.start + MINUTE)
    node.flow(stream, 1, 2)
    node.snapshot(fleet.start + 2 * MINUTE)
    with psycopg.connect(database_url, autocommit=True) as connection:
        save_users(connection, [user])
        save_funds(connection, {user.uuid: OPENING})
        before = read_books(connection)
        with connection.transaction():
            _plant(connection, user.uuid, fleet.start)
        yield Planted(connection, fleet, user.uuid, before)


@dataclass(frozen=True, slots=True)
class Planted:
    """A database in which one account's two minutes are billed rightly."""

    connection: Connection
    fleet: Fleet
    account: str
    before: Books

    def damage(self, statement: LiteralString) -> None:
        """Change rows behind the back of the triggers that protect them."""
        with self.connection.transaction(), without_guards(self.connection):
            changed = self.connection.execute(statement).rowcount
        assert changed > 0

    def found(self) -> list[str]:
        """Return the broken invariants."""
        return violations(self.connection, self.before)


def _plant(connection: Connection, account: str, start: datetime) -> None:
    """Write what a biller should write."""
    first, second = start + MINUTE, start + 2 * MINUTE
    connection.execute(
        """
        INSERT INTO billing.sources
        VALUES ('jp-1', 'prod', 'jp-1.svc.plus', %s, 'window', %s, %s)
        """,
        [NODE, start, second],
    )
    connection.execute(
        """
        INSERT INTO public.billing_source_sync_state (source_id, last_completed_until)
        VALUES ('jp-1', %s)
        """,
        [second],
    )
    connection.execute(
        """
        INSERT INTO billing.streams (stored_node_id, inbound_tag, sample_uuid, account_uuid,
        origin, first_seen_at, first_uplink_total, first_downlink_total, seen_at,
        uplink_total, downlink_total)
        VALUES (%(node)s, 'xhttp', %(account)s, %(account)s, 'baseline', %(start)s, 0, 0,
        %(end)s, 11, 22)
        """,
        {"node": NODE, "account": account, "start": start, "end": second},
    )
    connection.execute(
        """
        INSERT INTO public.traffic_stat_checkpoints (node_id, account_uuid, last_uplink_total,
        last_downlink_total, last_seen_at) VALUES (%s, %s, 11, 22, %s)
        """,
        [NODE, account, second],
    )
    balance, quota = OPENING
    for minute, uplink, downlink, before in ((first, 10, 20, (0, 0)), (second, 1, 2, (10, 20))):
        included = min(quota, uplink + downlink)
        rated = uplink + downlink - included
        row = {
            "id": _ledger_id(account, minute),
            "account": account,
            "node": NODE,
            "minute": minute,
            "next": minute + MINUTE,
            "previous": minute - MINUTE,
            "uplink_start": before[0],
            "uplink": uplink,
            "downlink_start": before[1],
            "downlink": downlink,
            "included": included,
            "rated": rated,
            "price": PRICE,
            "amount": -rated * PRICE,
            "quota": quota,
            "balance": balance,
        }
        for statement in PLANT_MINUTE:
            connection.execute(statement, row)
        balance, quota = balance - rated * PRICE, quota - included
    save_funds(connection, {account: Funds(balance, quota)})


PLANT_MINUTE: tuple[LiteralString, ...] = (
    """
    INSERT INTO billing.usage_records (stream_id, bucket_start, from_at, reset_epoch, to_at,
    uplink_start, uplink_end, downlink_start, downlink_end, account_uuid)
    SELECT stream_id, %(minute)s, %(previous)s, 0, %(minute)s, %(uplink_start)s,
    %(uplink_start)s + %(uplink)s, %(downlink_start)s, %(downlink_start)s + %(downlink)s,
    %(account)s FROM billing.streams
    """,
    """
    INSERT INTO public.traffic_minute_buckets (bucket_start, node_id, account_uuid, line_code,
    uplink_bytes, downlink_bytes, total_bytes, rating_status) VALUES (%(minute)s, %(node)s,
    %(account)s, 'xhttp', %(uplink)s, %(downlink)s, %(uplink)s + %(downlink)s, 'rated')
    """,
    """
    INSERT INTO billing.charges (ledger_id, entry_type, bucket_start, stored_node_id,
    account_uuid, region, line_code, included_bytes, rated_bytes, price_per_byte, multiplier,
    amount_delta, quota_before, balance_before, pricing_rule_version, run_id)
    VALUES (%(id)s, 'traffic_charge', %(minute)s, %(node)s, %(account)s, '', 'xhttp',
    %(included)s, %(rated)s, %(price)s, 1, %(amount)s, %(quota)s, %(balance)s, '', %(id)s)
    """,
    """
    INSERT INTO public.billing_ledger (id, account_uuid, bucket_start, bucket_end, entry_type,
    rated_bytes, amount_delta, balance_after, created_at)
    VALUES (%(id)s, %(account)s, %(minute)s, %(next)s, 'traffic_charge', %(rated)s, %(amount)s,
    %(balance)s::numeric + %(amount)s::numeric, clock_timestamp())
    """,
)


def _ledger_id(account: str, minute: datetime) -> str:
    """Return the ledger id of a minute's charge, as the contract spells it out."""
    name = f"{minute:%Y-%m-%dT%H:%M:%SZ}|{NODE}|{account}||xhttp"
    return str(uuid.uuid5(uuid.NAMESPACE_OID, name))
