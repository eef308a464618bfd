"""What every job gets: the configuration as plain values, the clock, and who is running."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

from billing_cli.core.prices import PriceList
from billing_cli.core.times import format_rfc3339
from billing_cli.errors import ConfigurationError, UsageError
from billing_cli.suggestions import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from billing_cli.config.source import Source
    from billing_cli.core.model import DeltaPolicy
    from billing_cli.core.peak import PeakHours
    from billing_cli.core.shard import Shard
    from billing_cli.database.connecting import Database
    from billing_cli.exporter.credentials import SecretToken


@dataclass(frozen=True, slots=True)
class Tariff:
    """What is charged where an account's profile does not say otherwise.

    `price_per_byte` in the currency of the balances, 0 where none is configured; `initial_*` are
    what a new account's quota state begins with. Packages in `free_packages` cost nothing; with
    `allow_zero_price` an account without a price costs nothing too. The daily maxima are those of
    an account and of a source that has none of its own; 0 is none.
    """

    price_per_byte: Decimal
    initial_included_quota_bytes: int
    initial_balance: Decimal
    pricing_rule_version: str
    default_region: str
    peak_hours: PeakHours | None
    free_packages: frozenset[str] = frozenset()
    allow_zero_price: bool = False
    max_daily_charge: Decimal = Decimal(0)
    max_daily_charge_per_source: Decimal = Decimal(0)

    @property
    def prices(self) -> PriceList:
        """The part of it that decides about an account's price."""
        return PriceList(
            self.price_per_byte,
            self.free_packages,
            self.allow_zero_price,
            has_peak_hours=self.peak_hours is not None,
        )


@dataclass(frozen=True, slots=True)
class FetchPolicy:
    """How exporters are asked: bounds per step, side by side, in seconds where not said."""

    step_max_samples: int = 100_000
    page_limit: int = 60
    concurrency: int = 32
    deadline_seconds: float = 25.0


@dataclass(frozen=True, slots=True)
class JobContext:
    """One run of `job`: `clock` gives aware UTC datetimes; `run_id` names the run everywhere.

    `shard` is the part of the sources that is this host's to work on. `deltas` holds for
    sources that have no rates of their own: see `policy_of`. `currency` labels amounts; nothing is
    converted.
    """

    run_id: str
    clock: Callable[[], datetime]
    database: Database
    sources: tuple[Source, ...]
    tariff: Tariff
    deltas: DeltaPolicy
    shard: Shard | None = None
    fetching: FetchPolicy = FetchPolicy()
    default_token: SecretToken | None = None
    settle: timedelta = timedelta(seconds=30)
    stalled_after: timedelta = timedelta(seconds=300)
    initial_lookback: timedelta = timedelta(hours=72)
    host: str = ""
    version: str = ""
    job: str = ""
    currency: str = ""

    def policy_of(self, source: Source) -> DeltaPolicy:
        """Return what the delta computation may assume of a source."""
        own = {field.name: getattr(source, field.name, None) for field in fields(self.deltas)}
        given = {name: value for name, value in own.items() if value is not None}
        return replace(self.deltas, **given)


def check_range(
    since: datetime | None, until: datetime | None, now: datetime | None = None
) -> None:
    """Raise UsageError where a range ends before it begins, or begins after `now`."""
    if since is not None and now is not None and since > now:
        raise UsageError(f"--since is in the future: it is {format_rfc3339(now)} now")
    if since is not None and until is not None and since > until:
        raise UsageError("--since is after --until")


def sources_to_work_on(context: JobContext, source_ids: Sequence[str]) -> list[Source]:
    """Return the sources that are named, or else the enabled ones of this host's shard.

    Whoever names a source wants it worked on here and now. A shard may be empty. Raises as
    `select_sources` does.
    """
    selected = select_sources(context, source_ids)
    if source_ids or context.shard is None:
        return selected
    return [source for source in selected if context.shard.holds(source.source_id)]


def select_sources(context: JobContext, source_ids: Sequence[str]) -> list[Source]:
    """Return the enabled sources, or those of them that are named.

    Raises ConfigurationError where none is configured, UsageError for a name that is unknown or
    disabled.
    """
    by_id = {source.source_id: source for source in context.sources}
    unknown = sorted(set(source_ids) - by_id.keys())
    if unknown:
        known = ", ".join(sorted(by_id)) or "none"
        hint = did_you_mean(unknown[0], by_id)
        raise UsageError(f"unknown source {', '.join(unknown)}{hint}; configured: {known}")
    disabled = sorted(name for name in set(source_ids) if not by_id[name].enabled)
    if disabled:
        raise UsageError(f"source {', '.join(disabled)} is disabled in the configuration")
    selected = [
        source
        for source in context.sources
        if source.enabled and (not source_ids or source.source_id in source_ids)
    ]
    if not selected and context.sources:
        raise ConfigurationError(
            'every configured source is disabled; set its "enabled" to true, or leave it out'
        )
    if not selected:
        raise ConfigurationError(
            "no exporter source is configured; set EXPORTER_SOURCES_JSON or EXPORTER_BASE_URL, "
            "or add [[sources]] to the configuration file"
        )
    return selected
