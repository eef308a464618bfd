"""Fixtures of suspensions: accounts, and a role that may do nothing but suspend."""

from __future__ import annotations

import uuid
from datetime import datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg import sql

from billing_cli.core.model import DeltaPolicy
from billing_cli.database.connecting import Database
from billing_cli.features.migrate.job import migrate
from billing_cli.features.suspend.job import suspend
from billing_cli.jobs.context import JobContext, Tariff
from tests.support.neighbour import ADD_NEWER_COLUMNS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from billing_cli.features.suspend.report import SuspendResult
    from tests.support.postgres import Databases

AFTER = timedelta(days=14)


class Arrears:
    """The quota states of a database, and `suspend` at times that a test sets."""

    def __init__(self, url: str, connection: psycopg.Connection[dict[str, Any]]) -> None:
        self.url = url
        self.connection = connection
        row = connection.execute("SELECT now() AS now").fetchone()
        assert row is not None
        self.now: datetime = row["now"]

    def account(self, balance: float, *, arrears: bool = False) -> str:
        """Add an account, flagged by another service or not."""
        name = str(uuid.uuid4())
        self.connection.execute(
            "INSERT INTO public.users (uuid, proxy_uuid, username, password)"
            " VALUES (%s, %s, '', '')",
            (name, name),
        )
        self.connection.execute(
            "INSERT INTO public.account_quota_states (account_uuid, remaining_included_quota,"
            " current_balance, arrears, throttle_state, effective_at)"
            " VALUES (%s, 0, %s, %s, %s, now())",
            (name, balance, arrears, "throttled" if arrears else "normal"),
        )
        return name

    def set(self, account: str, **columns: object) -> None:
        """Change columns of an account's quota state, as another service does."""
        for name, value in columns.items():
            statement = sql.SQL(
                "UPDATE public.account_quota_states SET {} = %s WHERE account_uuid = %s"
            ).format(sql.Identifier(name))
            self.connection.execute(statement, (value, account))

    def state(self, account: str) -> tuple[bool, str, str]:
        """Return the arrears flag, throttle state and suspend state of an account."""
        row = self.connection.execute(
            "SELECT arrears, throttle_state, suspend_state FROM public.account_quota_states"
            " WHERE account_uuid = %s",
            (account,),
        ).fetchone()
        assert row is not None
        return row["arrears"], row["throttle_state"], row["suspend_state"]

    def suspend(self, days: float = 0, **options: Any) -> SuspendResult:
        """Run `suspend` so many days from now."""
        now = self.now + timedelta(days=days)
        context = JobContext(
            run_id=str(uuid.uuid4()),
            clock=lambda: now,
            database=Database(self.url),
            sources=(),
            tariff=Tariff(Decimal(0), 0, Decimal(0), "", "", None),
            deltas=DeltaPolicy(),
        )
        return suspend(context, AFTER, **options)


@pytest.fixture
def suspend_role(databases: Databases, database_url: str) -> Iterator[str]:
    """Return the name of a role that may run `suspend` on the database."""
    name = f"{urlsplit(database_url).path[1:]}_suspend"
    identifier = sql.Identifier(name)
    databases.admin.execute(sql.SQL("CREATE ROLE {} LOGIN").format(identifier))
    migrate(database_url, grant_suspend_to=name)
    yield name
    with psycopg.connect(database_url, autocommit=True) as opened:
        opened.execute(sql.SQL("DROP OWNED BY {}").format(identifier))
    databases.admin.execute(sql.SQL("DROP ROLE {}").format(identifier))


@pytest.fixture
def arrears(
    request: pytest.FixtureRequest, connection: psycopg.Connection[dict[str, Any]]
) -> Arrears:
    """Return a database with the newer columns, seen by the role that suspends."""
    connection.execute(ADD_NEWER_COLUMNS)
    name = request.getfixturevalue("suspend_role")
    url = request.getfixturevalue("database_url")
    return Arrears(f"{url}&user={name}".replace("postgres@", "", 1), connection)
