"""Prices the charges of a range again, in memory, and shows the differences. Writes nothing."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from billing_cli.cli.tables import Column, Table
from billing_cli.cli.units import amounts_in, plural
from billing_cli.core.model import BucketKey
from billing_cli.core.objects import attributes
from billing_cli.core.prices import NoPrice, ProfileRow
from billing_cli.core.simulation import Cost, RecordedBucket, simulate, terms_of
from billing_cli.core.times import minute_of
from billing_cli.database import arrays
from billing_cli.database.accounts import READ_USERS
from billing_cli.database.connection import Session
from billing_cli.database.partitions import require_evidence
from billing_cli.database.schema import require_head
from billing_cli.errors import UsageError
from billing_cli.features.simulate.packages import unused_packages
from billing_cli.jobs.context import check_range

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime
    from decimal import Decimal

    from psycopg import Connection

    from billing_cli.cli.tables import Cell, Part
    from billing_cli.core.simulation import Package, Terms
    from billing_cli.jobs.context import JobContext

# The records of a step are in memory at once.
STEP = timedelta(hours=6)


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked: the minutes that begin in [since, until), under these prices.

    `price_per_byte` takes the place of the configured one; packages are by name. No account named
    means all.
    """

    since: datetime
    until: datetime
    price_per_byte: Decimal | None
    packages: Mapping[str, Package]
    account_uuids: tuple[str, ...] = ()


def run_simulation(context: JobContext, question: Question) -> Simulation:
    """Return what the accounts would have paid. An account without a price is left out.

    A package that no profile has is noted. Raises UsageError for a range that makes no sense or
    whose evidence was pruned, and for an account that neither exists nor has charges in the range;
    BillingError where the database can't be read.
    """
    check_range(question.since, question.until, context.clock())
    runner = _Runner(context, replace(question, since=minute_of(question.since)))
    with Session(context.database) as session:
        return session.read_one_state(runner.work)


class _Runner:
    """The accounts' terms and costs, while the range is read step by step."""

    def __init__(self, context: JobContext, question: Question) -> None:
        self.question = question
        self.peak_hours = context.tariff.peak_hours
        prices = context.tariff.prices
        if question.price_per_byte is not None:
            prices = replace(prices, price_per_byte=question.price_per_byte, allow_zero_price=True)
        self.prices = prices
        self.terms: dict[str, Terms | NoPrice] = {}
        self.costs: dict[str, Cost] = {}

    def work(self, connection: Connection) -> Simulation:
        question = self.question
        require_head(connection)
        require_evidence(connection, question.since)
        renewals = read_renewals(connection, question.since, question.until)
        start = question.since
        while start < question.until:
            end = min(start + STEP, question.until)
            wanted = question.account_uuids or None
            recorded = read_recorded(connection, start, end, wanted)
            new = recorded.keys() - self.terms.keys()
            for account, profile in read_profiles(connection, new).items():
                self.terms[account] = terms_of(
                    account, profile, self.prices, question.packages, renewals.get(account, ())
                )
            for account, buckets in recorded.items():
                self.add(account, buckets)
            start = end
        self.require_known(connection)
        accounts = sorted(self.costs.items(), key=lambda item: (-abs(item[1].difference), item[0]))
        problems = {
            account: terms.reason
            for account, terms in sorted(self.terms.items())
            if isinstance(terms, NoPrice)
        }
        return Simulation(
            question.since,
            question.until,
            dict(accounts),
            problems,
            notes=unused_packages(connection, question.packages),
        )

    def require_known(self, connection: Connection) -> None:
        """Raise UsageError for accounts that neither exist nor had charges in the range."""
        without_charges = set(self.question.account_uuids) - self.terms.keys()
        unknown = without_charges - read_existing(connection, without_charges)
        if unknown:
            raise UsageError(f"unknown account {', '.join(sorted(unknown))}")

    def add(self, account: str, buckets: list[RecordedBucket]) -> None:
        terms = self.terms[account]
        if isinstance(terms, NoPrice):
            return
        cost, self.terms[account] = simulate(account, buckets, terms, self.peak_hours)
        before = self.costs.get(account, Cost())
        self.costs[account] = Cost(
            before.total_bytes + cost.total_bytes,
            before.amount + cost.amount,
            before.simulated_amount + cost.simulated_amount,
        )


READ_RECORDED = """
SELECT bucket_start, stored_node_id, account_uuid::text, region, line_code,
       sum(included_bytes)::bigint, sum(rated_bytes)::bigint, -sum(amount_delta)
  FROM billing.charges
 WHERE bucket_start >= %(since)s AND bucket_start < %(until)s
   AND (%(account_uuids)s::uuid[] IS NULL OR account_uuid = ANY (%(account_uuids)s::uuid[]))
 GROUP BY bucket_start, stored_node_id, account_uuid, region, line_code
"""


def read_recorded(
    connection: Connection, since: datetime, until: datetime, account_uuids: Iterable[str] | None
) -> dict[str, list[RecordedBucket]]:
    """Return what was charged for each bucket of [since, until), by account."""
    wanted = None if account_uuids is None else arrays.plain(account_uuids)
    found: defaultdict[str, list[RecordedBucket]] = defaultdict(list)
    for row in connection.execute(
        READ_RECORDED, {"since": since, "until": until, "account_uuids": wanted}
    ):
        bucket = RecordedBucket(BucketKey(*row[:5]), *row[5:])
        found[bucket.key.account_uuid].append(bucket)
    return found


# An account that was deleted since has no profile any more.
READ_PROFILES = """
SELECT wanted.uuid::text, profile.package_name, profile.base_price_per_byte,
       profile.region_multiplier, profile.line_multiplier, profile.peak_multiplier,
       profile.offpeak_multiplier
  FROM unnest(%(account_uuids)s::uuid[]) AS wanted (uuid)
  LEFT JOIN public.account_billing_profiles AS profile ON profile.account_uuid = wanted.uuid
"""


def read_profiles(connection: Connection, account_uuids: Iterable[str]) -> dict[str, ProfileRow]:
    """Return the billing profile of each account, an empty one where it has none."""
    rows = connection.execute(READ_PROFILES, {"account_uuids": arrays.plain(account_uuids)})
    return {account: ProfileRow(*profile) for account, *profile in rows}


def read_existing(connection: Connection, account_uuids: Iterable[str]) -> set[str]:
    """Return which of the accounts exist."""
    rows = connection.execute(READ_USERS, {"account_uuids": arrays.plain(account_uuids)})
    return {account for (account,) in rows}


READ_RENEWALS = """
SELECT account_uuid::text, period_start
  FROM billing.quota_periods
 WHERE period_start > %(since)s AND period_start < %(until)s
 ORDER BY period_start
"""


def read_renewals(
    connection: Connection, since: datetime, until: datetime
) -> dict[str, list[datetime]]:
    """Return the quota periods that began within the range, by account, oldest first."""
    found: defaultdict[str, list[datetime]] = defaultdict(list)
    for account, start in connection.execute(READ_RENEWALS, {"since": since, "until": until}):
        found[account].append(start)
    return found


@dataclass(frozen=True, slots=True)
class Simulation:
    """Costs by account, the largest difference first; `problems` are accounts left out.

    `notes` are about the packages that were asked for.
    """

    since: datetime
    until: datetime
    accounts: Mapping[str, Cost]
    problems: Mapping[str, str]
    currency: str = ""
    notes: tuple[str, ...] = ()

    @property
    def total(self) -> Cost:
        """The sum over the accounts."""
        costs = self.accounts.values()
        return Cost(
            sum(cost.total_bytes for cost in costs),
            sum((cost.amount for cost in costs), Cost().amount),
            sum((cost.simulated_amount for cost in costs), Cost().amount),
        )


def simulation_object(simulation: Simulation) -> dict[str, Any]:
    """Return the simulation as a JSON object; amounts are decimals as text."""
    return {
        "job": "simulate",
        "status": "partial" if simulation.problems else "ok",
        "error": None,
        **attributes(simulation, "since until"),
        "currency": simulation.currency or None,
        "accounts": [
            {"account_uuid": account, **cost_object(cost)}
            for account, cost in simulation.accounts.items()
        ],
        "total": cost_object(simulation.total),
        "problems": [
            {"account_uuid": account, "reason": reason}
            for account, reason in simulation.problems.items()
        ],
    }


def cost_object(cost: Cost) -> dict[str, Any]:
    """Return a cost with plain values."""
    return attributes(cost, "total_bytes amount simulated_amount difference")


MAX_ACCOUNTS_SHOWN = 50

COLUMNS = (
    Column("account_uuid"),
    Column("total_bytes", "bytes", is_extra=True),
    Column("amount", "money", is_extra=True),
    Column("simulated_amount", "money"),
    Column("difference", "change"),
)


def simulation_parts(simulation: Simulation) -> list[Part]:
    """Return the accounts with the largest differences, the total, what was left out, and notes."""
    shown = list(simulation.accounts.items())[:MAX_ACCOUNTS_SHOWN]
    rows = [_row(account, cost) for account, cost in shown]
    hidden = len(simulation.accounts) - len(shown)
    parts: list[Part] = [Table(COLUMNS, [*rows, _row("total", simulation.total)])]
    if hidden > 0:
        others = plural(hidden, "other account")
        parts.append(f"{others} in the total; --output csv lists them all")
    parts += amounts_in(simulation.currency)
    parts += [f"left out: account {account}: {why}" for account, why in simulation.problems.items()]
    parts += simulation_notes(simulation)
    return parts


def simulation_notes(simulation: Simulation) -> list[str]:
    """Return the notes as lines."""
    return [f"note: {note}" for note in simulation.notes]


def simulation_table(simulation: Simulation) -> Table:
    """Return all accounts as rows, without the total."""
    return Table(COLUMNS, [_row(account, cost) for account, cost in simulation.accounts.items()])


def _row(name: str, cost: Cost) -> tuple[Cell, ...]:
    return name, cost.total_bytes, cost.amount, cost.simulated_amount, cost.difference
