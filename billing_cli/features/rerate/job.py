"""`rerate`: brings the charges of a range to the prices that hold now, by further entries.

First all of the range is read without any lock, which finds what would change and whether it may.
Then the steps in which something changes are written, one transaction each. What has the right
amount already is left alone, so a second run, or one after a crash, changes nothing twice.
"""

from __future__ import annotations

from collections import defaultdict
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import TYPE_CHECKING, NamedTuple

from billing_cli.core.adjustments import reprice
from billing_cli.core.bucket_history import standing_charges
from billing_cli.core.model import Account, Rating
from billing_cli.core.prices import NoPrice, price_of
from billing_cli.core.result import AccountAmount
from billing_cli.database.connection import Session
from billing_cli.database.partitions import require_evidence
from billing_cli.database.schema import require_head
from billing_cli.errors import UsageError
from billing_cli.features.rerate import queries as store
from billing_cli.features.rerate.report import RerateResult
from billing_cli.jobs.accounts import lock_accounts
from billing_cli.jobs.context import check_range
from billing_cli.jobs.daily_maximum import note_charged
from billing_cli.jobs.entries import write_rating
from billing_cli.jobs.nodes import nodes_of
from billing_cli.jobs.prices import require_prices
from billing_cli.jobs.run_history import record_run, recording_failure

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    from psycopg import Connection

    from billing_cli.core.bucket_history import BucketHistory
    from billing_cli.core.model import BucketKey, Charge
    from billing_cli.features.rerate.queries import Scope
    from billing_cli.jobs.context import JobContext

JOB = "rerate"

# The evidence of a step is in memory at once, and its accounts are locked while it is written.
STEP_BUCKETS = 20_000


@dataclass(frozen=True, slots=True)
class Order:
    """What is asked for: the minutes that begin in [since, until), the new version, and why.

    No account or source named means all. With `is_zero_price_meant` an account without a price
    gets everything back.
    """

    since: datetime
    until: datetime
    pricing_rule_version: str
    reason: str
    account_uuids: tuple[str, ...] = ()
    source_ids: tuple[str, ...] = ()
    is_zero_price_meant: bool = False


def rerate(
    context: JobContext,
    order: Order,
    *,
    dry_run: bool = False,
    step_buckets: int = STEP_BUCKETS,
    on_step: Callable[[datetime], None] | None = None,
) -> RerateResult:
    """Charge or give back the difference to the prices that a collect would charge now.

    A dry run only reads. `on_step` is called with how far the writing has come. An account
    without a price is left alone and reported. Raises, with nothing written, UsageError for an
    account or a source that does not exist, and for a version that charges of the range have at
    another price; ConfigurationError where no account can have a price. Raises BillingError where
    a step failed; the steps before it stand, and the error's `so_far` is what they did.
    """
    check_range(order.since, order.until, context.clock())
    if order.is_zero_price_meant:
        context = replace(context, tariff=replace(context.tariff, allow_zero_price=True))
    started_at = context.clock()
    done = _Differences()

    def outcome(differences: _Differences) -> RerateResult:
        return RerateResult(
            job=JOB,
            run_id=context.run_id,
            status="partial" if differences.notes else "ok",
            started_at=started_at,
            finished_at=context.clock(),
            written_minutes=differences.minutes,
            amount=sum(differences.amounts.values(), Decimal(0)),
            corrections=sum(differences.corrections.values()),
            steps=differences.steps,
            dry_run=dry_run,
            notes=tuple(differences.notes),
            pricing_rule_version=order.pricing_rule_version,
            accounts=tuple(
                AccountAmount(account, count, differences.amounts[account])
                for account, count in sorted(differences.corrections.items())
            ),
        )

    with (
        Session(context.database) as session,
        # A dry run only reads, each time in a transaction of its own, and leaves no trace.
        nullcontext() if dry_run else recording_failure(context, session, lambda: outcome(done)),
    ):
        scope = session.read(lambda connection: _scope(context, connection, order))
        steps, expected = _survey(context, session, scope, order, step_buckets)
        if dry_run:
            return outcome(expected)
        done.notes = expected.notes
        for step in steps:

            def work(
                connection: Connection, step: Scope = step, done: _Differences = done
            ) -> _Differences:
                so_far = _write(context, connection, step, order, done.copy())
                _record(context, connection, outcome(so_far))
                return so_far

            done = session.transaction(work)
            if on_step is not None:
                on_step(step.until)
        if not steps:
            session.transaction(lambda connection: _record(context, connection, outcome(done)))
    return outcome(done)


@dataclass(slots=True)
class _Differences:
    """What changes: entries and amounts by account, positive where the account pays more."""

    corrections: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    amounts: defaultdict[str, Decimal] = field(default_factory=lambda: defaultdict(Decimal))
    minutes: int = 0
    steps: int = 0
    notes: Sequence[str] = ()

    def add(self, entries: Sequence[Charge]) -> None:
        self.minutes += 1
        for entry in entries:
            self.corrections[entry.key.account_uuid] += 1
            self.amounts[entry.key.account_uuid] -= entry.amount_delta

    def copy(self) -> _Differences:
        return replace(self, corrections=self.corrections.copy(), amounts=self.amounts.copy())


def _scope(context: JobContext, connection: Connection, order: Order) -> Scope:
    """Return which buckets are meant. Raises UsageError where that names what does not exist."""
    require_head(connection)
    require_prices(context.tariff, connection)
    require_evidence(connection, order.since)
    known = store.read_profiles(connection, order.account_uuids)
    unknown = sorted(set(order.account_uuids) - known.keys())
    if unknown:
        raise UsageError(f"unknown account {', '.join(unknown)}")
    nodes = nodes_of(context, connection, order.source_ids)
    return store.Scope(order.since, order.until, nodes, order.account_uuids or None)


def _survey(
    context: JobContext, session: Session, scope: Scope, order: Order, step_buckets: int
) -> tuple[list[Scope], _Differences]:
    """Return the steps in which something changes, and what that will be."""
    found = _Differences()
    steps: list[Scope] = []
    unproven = conflicts = 0
    problems: dict[str, str] = {}
    rest = scope
    while rest.since < scope.until:

        def read(connection: Connection, rest: Scope = rest) -> _Reading:
            return _read(context, connection, rest, step_buckets)

        step, charged, accounts, step_problems = session.read(read)
        changes = _changes(context, charged.histories, accounts, order.reason)
        for key, entries in changes.items():
            found.add(entries)
            conflicts += _count_conflicts(charged.histories[key], entries, order)
        if changes:
            steps.append(step)
        unproven += charged.unproven
        problems.update(step_problems)
        rest = replace(scope, since=step.until)
    if conflicts:
        raise UsageError(
            f"{conflicts} charges of the range have version {order.pricing_rule_version!r} "
            "already, at another price; give the new prices a version of their own"
        )
    found.steps = len(steps)
    notes = [*problems.values()]
    if unproven:
        notes.append(
            f"{unproven} minutes were charged by another writer, at a price that is not on "
            "record: they are left alone"
        )
    found.notes = notes
    return steps, found


class _Reading(NamedTuple):
    """A step, what is charged in it, and by account the prices or why there are none."""

    step: Scope
    charged: store.ChargedBuckets
    accounts: dict[str, Account]
    problems: dict[str, str]


def _read(context: JobContext, connection: Connection, rest: Scope, step_buckets: int) -> _Reading:
    """Read the first step of what is left. The funds of its accounts are not read, and are 0."""
    end = store.read_step_end(connection, rest, step_buckets)
    step = replace(rest, until=min(end, rest.until))
    charged = store.read_charged_buckets(connection, step)
    profiles = store.read_profiles(connection, {key.account_uuid for key in charged.histories})
    accounts, problems = {}, {}
    for account, profile in sorted(profiles.items()):
        price = price_of(profile, context.tariff.prices)
        if isinstance(price, NoPrice):
            problems[account] = f"account {account} can't be charged: {price.reason}"
        else:
            accounts[account] = Account(account, 0, Decimal(0), price)
    return _Reading(step, charged, accounts, problems)


def _write(
    context: JobContext, connection: Connection, step: Scope, order: Order, done: _Differences
) -> _Differences:
    """Write a step in the open transaction, with its accounts locked; return what is done then."""
    locked = lock_accounts(context, connection, store.read_accounts(connection, step))
    accounts = dict(locked.chargeable)
    step = replace(step, account_uuids=tuple(accounts))
    charged = store.read_charged_buckets(connection, step)
    changes = _changes(context, charged.histories, accounts, order.reason)
    store.reprice_buckets(
        connection,
        [(key, entries[0].multiplier) for key, entries in changes.items()],
        order.pricing_rule_version,
    )
    charges = tuple(entry for entries in changes.values() for entry in entries)
    write_rating(
        context,
        connection,
        Rating(charges, accounts),
        pricing_rule_version=order.pricing_rule_version,
    )
    note_charged(context, connection, charges)
    for entries in changes.values():
        done.add(entries)
    done.notes = tuple(dict.fromkeys([*done.notes, *locked.problems.values()]))
    done.steps += 1
    return done


def _changes(
    context: JobContext,
    histories: Mapping[BucketKey, BucketHistory],
    accounts: dict[str, Account],
    reason: str,
) -> dict[BucketKey, list[Charge]]:
    """Return the entries for each bucket that changes, in bucket order; charge the accounts."""
    changes = {}
    for key in sorted(histories):
        account = accounts.get(key.account_uuid)
        if account is None:
            continue
        accounts[key.account_uuid], entries = reprice(
            key, histories[key], account, context.tariff.peak_hours, reason
        )
        if entries:
            changes[key] = entries
    return changes


def _count_conflicts(history: BucketHistory, entries: Sequence[Charge], order: Order) -> int:
    """Count the entries that would give the order's version a second price for one charge."""
    versions = {
        charge.ledger_id: charge.pricing_rule_version
        for charge in standing_charges(history.entries)
    }
    return sum(versions[entry.adjusts or ""] == order.pricing_rule_version for entry in entries)


def _record(context: JobContext, connection: Connection, result: RerateResult) -> None:
    """Write the row in the run history; ledger entries with the run's id hold the differences."""
    record_run(context, connection, replace(result, accounts=()))
