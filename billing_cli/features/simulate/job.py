"""`simulate`: prices the charges of a range again, in memory. Writes nothing."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING

from billing_cli.core.prices import NoPrice
from billing_cli.core.simulation import Cost, simulate, terms_of
from billing_cli.core.times import minute_of
from billing_cli.database.connection import Session
from billing_cli.database.partitions import require_evidence
from billing_cli.database.schema import require_head
from billing_cli.errors import UsageError
from billing_cli.features.simulate import queries as store
from billing_cli.features.simulate.result import Simulation
from billing_cli.jobs.context import check_range
from billing_cli.suggestions import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from decimal import Decimal

    from psycopg import Connection

    from billing_cli.core.simulation import Package, RecordedBucket, Terms
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
        renewals = store.read_renewals(connection, question.since, question.until)
        start = question.since
        while start < question.until:
            end = min(start + STEP, question.until)
            wanted = question.account_uuids or None
            recorded = store.read_recorded(connection, start, end, wanted)
            new = recorded.keys() - self.terms.keys()
            for account, profile in store.read_profiles(connection, new).items():
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
            notes=_unused_packages(connection, question.packages),
        )

    def require_known(self, connection: Connection) -> None:
        """Raise UsageError for accounts that neither exist nor had charges in the range."""
        without_charges = set(self.question.account_uuids) - self.terms.keys()
        unknown = without_charges - store.read_existing(connection, without_charges)
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


def _unused_packages(connection: Connection, packages: Mapping[str, Package]) -> tuple[str, ...]:
    """Return a note for each package that no profile has. "" stands for accounts without one."""
    if not packages:
        return ()
    known = store.read_package_names(connection)
    return tuple(
        f"no profile has the package {name!r}{did_you_mean(name, known)}"
        for name in packages
        if name and name not in known
    )
