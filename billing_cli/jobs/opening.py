"""From settings to what a job needs: the one place where configuration becomes plain values."""

from __future__ import annotations

import socket
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from billing_cli import __version__
from billing_cli.database.connecting import Database
from billing_cli.exporter.credentials import SecretToken
from billing_cli.jobs.context import FetchPolicy, JobContext, Tariff

if TYPE_CHECKING:
    from billing_cli.config.settings import Settings


def context_of(settings: Settings, job: str, run_id: str) -> JobContext:
    """Return a run's context. Raises ConfigurationError where the database is not configured."""
    token = settings.internal_service_token
    return JobContext(
        run_id=run_id,
        clock=lambda: datetime.now(UTC),
        database=database_of(settings, job),
        sources=settings.sources,
        shard=settings.shard,
        tariff=Tariff(
            price_per_byte=settings.price_per_byte,
            initial_included_quota_bytes=settings.initial_included_quota_bytes,
            initial_balance=settings.initial_balance,
            pricing_rule_version=settings.source_revision,
            default_region=settings.default_region,
            peak_hours=settings.peak_hours,
            free_packages=frozenset(settings.free_packages),
            allow_zero_price=settings.allow_zero_price,
            max_daily_charge=settings.max_daily_charge,
            max_daily_charge_per_source=settings.max_daily_charge_per_source,
        ),
        deltas=settings.delta_policy(),
        fetching=FetchPolicy(
            step_max_samples=settings.step_max_samples,
            page_limit=settings.page_limit,
            deadline_seconds=settings.run_deadline_seconds,
        ),
        default_token=SecretToken(token.get_secret_value()) if token else None,
        settle=timedelta(seconds=settings.settle_seconds),
        stalled_after=timedelta(seconds=settings.stalled_after_seconds),
        initial_lookback=timedelta(hours=settings.initial_lookback_hours),
        host=socket.gethostname(),
        job=job,
        version=__version__,
        currency=settings.currency,
    )


def database_of(settings: Settings, job: str) -> Database:
    """Return where PostgreSQL is. Raises ConfigurationError where that is not configured."""
    return Database(
        dsn=settings.require_database_url().get_secret_value(),
        application_name=f"billing {job}",
        connect_timeout_seconds=settings.connect_timeout_seconds,
        statement_timeout_seconds=settings.statement_timeout_seconds,
        lock_timeout_seconds=settings.lock_timeout_seconds,
    )
