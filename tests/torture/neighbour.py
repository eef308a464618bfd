"""What accounts.svc.plus and exporters do to billing at their worst, each as one step.

After each of them a job runs, `audit` must name what it is meant to name, and `repair` must put
right what was lost.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any

import psycopg

from billing_cli.features.repair.job import repair_balances
from billing_cli.simulator import read_service
from billing_cli.simulator.books import read_funds
from billing_cli.simulator.publication import as_counted, in_turn, merged, retagged, with_uuids
from tests.torture import errands
from tests.torture.findings import require
from tests.torture.ground import OPENING, Errand

if TYPE_CHECKING:
    from collections.abc import Callable

    from billing_cli.simulator.read_service import StaleRow
    from billing_cli.simulator.traffic import Node, Stream, User
    from tests.torture.ground import Ground

LOCK_SECONDS = 0.05
UNUSABLE = (("current_balance", None), ("current_balance", "NaN"), ("current_balance", "Infinity"))
CLOCK_ERRORS = (0, 1200, -300, 70, -70, 200)

READ_RENEWALS = """
SELECT count(*) FROM billing.quota_periods WHERE account_uuid = %s AND period_start = %s
"""

# Whether an entry of ours found or left these funds.
READ_HAS_HAD = """
SELECT EXISTS (
  SELECT FROM (SELECT account_uuid, balance_before, balance_before + amount_delta AS balance_after,
                      quota_before, quota_before - included_bytes AS quota_after
                 FROM billing.charges
                UNION ALL
               SELECT account_uuid, balance_before, balance_after, quota_before, quota_after
                 FROM billing.repairs) AS entry
   WHERE account_uuid = %(account)s
     AND ((balance_before, quota_before) = (%(balance)s, %(quota)s)
          OR (balance_after, quota_after) = (%(balance)s, %(quota)s)))
"""

# What was charged since an account was created: its ledger rows are there.
READ_TAKEN = """
SELECT coalesce(-sum(charge.amount_delta), 0), coalesce(sum(charge.included_bytes), 0)::bigint
  FROM billing.charges AS charge
  JOIN public.billing_ledger AS entry ON entry.id = charge.ledger_id
 WHERE charge.account_uuid = %s
"""


def writes_stale_row(ground: Ground, user: User, number: int) -> None:
    """A whole row is written back that was read before a run: audit says so, repair mends it."""
    if user.uuid not in read_funds(ground.connection):
        return
    row = read_service.read_row(ground.other, user.uuid)
    ground.elapse(61, 30)
    _collect(ground)
    before = read_funds(ground.connection)[user.uuid]
    top_up = Decimal(number) if number % 3 == 2 else Decimal(0)
    with ground.changing_funds(user.uuid):
        if top_up:
            read_service.record_entry(ground.other, user.uuid, "topup", top_up, _written_at())
        balance = row.values["current_balance"] + float(top_up)
        row.write_back(ground.other, current_balance=balance)
    after = read_funds(ground.connection)[user.uuid]
    is_lost = (after.balance - top_up, after.quota) != before
    named = {finding.account_uuid for finding in ground.audit() if finding.kind == "charge_lost"}
    if (user.uuid in named) != is_lost:
        require([f"a stale write took {before} to {after}, and audit names {named}"])
    with ground.changing_funds(user.uuid):
        ground.work(Errand("repair", partial(repair_balances, reason="torture")))
    repaired = read_funds(ground.connection)[user.uuid]
    if (repaired.balance - top_up, repaired.quota) != before:
        require([f"repair took {after} to {repaired}, before the stale write it was {before}"])


def tops_up_in_two_statements(ground: Ground, user: User, number: int) -> None:
    """A run comes between a top-up's two statements, in either order; or its session is killed."""
    if user.uuid not in read_funds(ground.connection):
        return
    amount = Decimal(number + 1) / 1000
    first, second = (
        partial(read_service.record_entry, entry_type="topup", at=_written_at()),
        read_service.change_balance,
    )[:: -1 if number % 2 else 1]
    with psycopg.connect(ground.other.info.dsn, autocommit=True) as session:
        with ground.changing_funds(user.uuid):
            first(session, user.uuid, amount=amount)
        if number % 3 == 0:
            kill_session(ground.connection, session)
        ground.elapse(61, 30)
        _collect(ground)
        ground.check()
        with ground.changing_funds(user.uuid), suppress(psycopg.OperationalError):
            second(session, user.uuid, amount=amount)


def kill_session(admin: psycopg.Connection[Any], session: psycopg.Connection[Any]) -> None:
    """End a session on the server; its client learns of it with its next statement."""
    admin.execute("SELECT pg_terminate_backend(%s, 5000)", (session.info.backend_pid,))


def renews_quota(ground: Ground, user: User, number: int) -> None:
    """A new quota period begins in a minute that is not collected yet, or is already."""
    before = read_funds(ground.connection).get(user.uuid)
    if before is None:
        return
    row = read_service.read_row(ground.other, user.uuid)
    ground.elapse(300, 60)
    start = ground.now - timedelta(seconds=60 * (number % 6) + 7)
    if row.values["period_start"] is not None and row.values["period_start"] >= start:
        return
    quota = 1_000_000 * (number + 1)
    read_service.renew_quota(ground.other, user.uuid, quota, start, start + timedelta(days=30))
    _collect(ground)
    ((seen,),) = ground.connection.execute(READ_RENEWALS, (user.uuid, start)).fetchall()
    if not seen:
        require([f"the renewal of {user.uuid} was not noticed"])


def is_born_again(ground: Ground, user: User, number: int) -> None:
    """An account is deleted and created again with the same uuids.

    Now and then a service writes back the row that it read before.
    """
    row, has_had = None, False
    if number % 3 == 2 and user.uuid in read_funds(ground.connection):
        row = read_service.read_row(ground.other, user.uuid)
        has_had = _has_had(ground, user.uuid)
    ground.delete(user)
    ground.elapse(61, 30)
    _collect(ground)
    ground.check()
    ground.fleet.users.append(user)
    read_service.add_account(ground.other, user)
    if row is not None:
        _writes_row_of_before(ground, user.uuid, row, has_had=has_had)


def _writes_row_of_before(ground: Ground, account: str, row: StaleRow, *, has_had: bool) -> None:
    """What was charged since and comes back is lost, if the evidence shows the row: `has_had`.

    A quota that is full may have been renewed, unless a charge came back with it.
    """
    ground.elapse(61, 30)
    _collect(ground)
    before = read_funds(ground.connection).get(account)
    if before is None:
        return
    ((taken, used),) = ground.connection.execute(READ_TAKEN, (account,)).fetchall()
    with ground.changing_funds(account):
        row.write_back(ground.other)
    after = read_funds(ground.connection)[account]
    amount = max(Decimal(0), min(after.balance - before.balance, taken)) if has_had else Decimal(0)
    quota = max(0, min(after.quota - before.quota, used)) if has_had else 0
    if not amount and after.quota == OPENING.quota and row.values["period_start"] is None:
        quota = 0
    named = {finding.account_uuid for finding in ground.audit() if finding.kind == "charge_lost"}
    if (account in named) != bool(amount or quota):
        require([f"a row of before took {before} to {after}, and audit names {named}"])
    with ground.changing_funds(account):
        ground.work(Errand("repair", partial(repair_balances, reason="torture")))
    repaired = read_funds(ground.connection)[account]
    if (after.balance - repaired.balance, after.quota - repaired.quota) != (amount, quota):
        require([f"repair took {after} to {repaired}, of {before} were lost {amount}, {quota}"])


def _has_had(ground: Ground, account: str) -> bool:
    """Tell whether an entry of ours found or left what the account has."""
    funds = read_funds(ground.connection)[account]
    given = {"account": account, "balance": funds.balance, "quota": funds.quota}
    ((has_had,),) = ground.connection.execute(READ_HAS_HAD, given).fetchall()
    return bool(has_had)


def is_suspended(ground: Ground, user: User, number: int) -> None:
    """An account is not let in for a while: its counters stand still, and stay."""
    is_active = number % 2 == 1
    read_service.set_active(ground.other, user.uuid, is_active=is_active)
    for node in ground.fleet.nodes.values():
        for stream in node.streams:
            if stream.name.sample_uuid in {user.uuid, user.proxy_uuid}:
                stream.idle = not is_active


def has_an_unusable_row(ground: Ground, user: User, number: int) -> None:
    """A balance is NULL, NaN or Infinity during a run, which concerns that account only."""
    if user.uuid not in read_funds(ground.connection):
        return
    row = read_service.read_row(ground.other, user.uuid)
    column, value = UNUSABLE[number % len(UNUSABLE)]
    read_service.set_column(ground.other, user.uuid, column, value)
    ground.elapse(61, 30)
    _collect(ground)
    named = {finding.account_uuid for finding in ground.audit() if finding.kind == "funds_invalid"}
    read_service.set_column(ground.other, user.uuid, column, row.values[column])
    if named != {user.uuid}:
        require([f"the row of {user.uuid} is unusable, audit names {named}"])


def has_a_locked_row(ground: Ground, user: User, number: int) -> None:
    """A stuck session holds a quota state, or the account, during a run: that concerns it only."""
    ground.elapse(61, 30)
    errand = errands.errand(ground, "collect" if number % 2 else "catch-up")
    errand.lock_timeout_seconds = LOCK_SECONDS
    with ground.other.transaction():
        lock = read_service.lock_row if number % 4 < 2 else read_service.lock_user
        lock(ground.other, user.uuid)
        ground.work(errand)
    failed = (
        [source.error for source in errand.result.sources if source.error] if errand.result else []
    )
    require([f"a locked row: {error}" for error in failed if error and "lock" in error])


def upgrades_exporter(ground: Ground, node: Node, number: int) -> None:
    """Counters are merged, split or renamed, or all of that is rolled back; xray may restart.

    In every other case most users are idle for a while after it.
    """
    if number % 4 == 3:
        node.restart_xray(ground.now)
    accounts = with_uuids({user.proxy_uuid: user.uuid for user in ground.fleet.users})
    node.naming = (
        merged,
        as_counted,
        retagged({"x": f"x-{number}"}),
        accounts,
        in_turn(accounts, merged),
        as_counted,
    )[number % 6]
    if number >= 6:
        ground.elapse(120, 60, activity=0.1)


def steps_clock(_ground: Ground, node: Node, number: int) -> None:
    """An exporter's clock is set; it replaces snapshots of the same stamp, and sorts by stamp."""
    node.takes_older_stamps = node.truncates_stamps = True
    node.clock_error = timedelta(seconds=CLOCK_ERRORS[number % len(CLOCK_ERRORS)])


def closes_spliced_connections(ground: Ground, node: Node, number: int) -> None:
    """Bytes of an hour are counted at once, when a spliced connection closes."""
    stream: Stream = node.streams[number % len(node.streams)]
    node.process.splice(stream, 10_000_000, 90_000_000 * (number + 1))
    ground.elapse(600, 60, activity=0.2)
    node.process.close_splices(stream)


USER_ACTIONS: dict[str, Callable[[Ground, User, int], None]] = {
    "stale write": writes_stale_row,
    "split top-up": tops_up_in_two_statements,
    "renewal": renews_quota,
    "reborn": is_born_again,
    "suspended": is_suspended,
    "unusable": has_an_unusable_row,
    "locked": has_a_locked_row,
}

NODE_ACTIONS: dict[str, Callable[[Ground, Node, int], None]] = {
    "upgrade": upgrades_exporter,
    "clock step": steps_clock,
    "splice": closes_spliced_connections,
}


def _written_at() -> datetime:
    """Return when a ledger row is written: by the server's clock, as all of them are."""
    return datetime.now(UTC)


def _collect(ground: Ground) -> None:
    ground.work(errands.errand(ground, "collect"))
