"""The session, its transactions, and what their errors mean.

Works through PgBouncer in transaction mode: no prepared statements, no session settings, no
session locks.
"""

from __future__ import annotations

import signal
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self, TypeVar

import psycopg
from psycopg import errors as pg

from billing_cli.errors import (
    BillingError,
    ConfigurationError,
    DatabaseUnavailableError,
    SchemaError,
)
from billing_cli.store.schema import MIGRATE_HINT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from psycopg import Connection

Result = TypeVar("Result")

# Each limits this transaction only, because a pooled session belongs to others afterwards.
SET_LOCAL_TIMEOUTS = """
SELECT set_config('statement_timeout', %(statement_timeout)s, true),
       set_config('lock_timeout', %(lock_timeout)s, true),
       set_config('idle_in_transaction_session_timeout', %(idle_timeout)s, true),
       pg_current_xact_id()::text
"""

# Tells whether the transaction whose COMMIT was never answered became durable.
TRANSACTION_STATUS = "SELECT pg_xact_status(%(transaction_id)s::xid8)"

TRANSIENT = (
    pg.SerializationFailure,
    pg.DeadlockDetected,
    pg.AdminShutdown,
    pg.CrashShutdown,
    pg.CannotConnectNow,
    pg.IdleInTransactionSessionTimeout,
)
UNREACHABLE = (pg.CannotConnectNow, pg.AdminShutdown, pg.CrashShutdown, pg.TooManyConnections)
SCHEMA_MISMATCH = (
    pg.UndefinedTable,
    pg.UndefinedColumn,
    pg.InvalidSchemaName,
    pg.UndefinedFunction,
)

ATTEMPTS = 3
RETRY_PAUSE_SECONDS = 0.1
COMMIT_CHECKS = 10
COMMIT_CHECK_PAUSE_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Database:
    """Where PostgreSQL is and how long it may take. `dsn` is a URI or a libpq keyword string."""

    dsn: str
    application_name: str = "billing"
    connect_timeout_seconds: int = 10
    statement_timeout_seconds: float = 50.0
    lock_timeout_seconds: float = 20.0

    def __repr__(self) -> str:
        return "Database(dsn=***)"


class Session:
    """A database connection for the length of a run, opened when first needed.

    `transaction` commits; with `dry_run` everything happens in one transaction, which is rolled
    back when the session closes, so that later steps see what earlier ones would have written.
    """

    def __init__(
        self,
        database: Database,
        *,
        dry_run: bool = False,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self.database = database
        self.dry_run = dry_run
        self.pause = pause
        self._connection: Connection | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the connection back; what is not committed is rolled back."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def read(self, work: Callable[[Connection], Result]) -> Result:
        """Do work that changes nothing. Raises as `transaction` does, without trying again."""
        try:
            connection = self._open()
            if not self.dry_run:
                connection.autocommit = True
            return work(connection)
        except psycopg.Error as error:
            self.close()
            raise translate(error) from None

    def transaction(self, work: Callable[[Connection], Result]) -> Result:
        """Do the work in one transaction and commit it.

        The whole transaction is tried again, on a new connection and at most three times, where
        the server was at fault: serialization failure, deadlock, shutdown, lost connection.
        Where the answer to COMMIT was lost, the server is asked whether it took place before
        anything is repeated. Raises DatabaseUnavailableError where the server can't be reached,
        SchemaError where its schema is not ours, BillingError for any other database error.
        """
        for attempt in range(1, ATTEMPTS + 1):
            progress = _Progress()
            try:
                return self._attempt(work, progress)
            except psycopg.Error as error:
                self.close()
                if progress.committing and self._became_durable(progress.transaction_id):
                    return progress.result  # type: ignore[return-value]
                last = attempt == ATTEMPTS or self.dry_run
                if last or not is_transient(error):
                    raise translate(error) from None
            except BaseException:
                self.close()
                raise
            self.pause(RETRY_PAUSE_SECONDS * attempt)
        raise AssertionError("unreachable")

    def _attempt(self, work: Callable[[Connection], Result], progress: _Progress) -> Result:
        connection = self._open()
        if not self.dry_run:
            connection.autocommit = False
        milliseconds = f"{self.database.statement_timeout_seconds * 1000:.0f}"
        row = connection.execute(
            SET_LOCAL_TIMEOUTS,
            {
                "statement_timeout": milliseconds,
                "lock_timeout": f"{self.database.lock_timeout_seconds * 1000:.0f}",
                # A dry run keeps its transaction open while it fetches.
                "idle_timeout": "0" if self.dry_run else milliseconds,
            },
        ).fetchone()
        progress.transaction_id = row[3] if row else ""
        progress.result = result = work(connection)
        if not self.dry_run:
            with _signals_wait():
                progress.committing = True
                connection.commit()
        return result

    def _open(self) -> Connection:
        if self._connection is None:
            self._connection = _connect(self.database)
            self._connection.autocommit = not self.dry_run
        return self._connection

    def _became_durable(self, transaction_id: str) -> bool:
        """Find out whether a transaction committed although its answer never came.

        While the server still works on it, neither answer is true yet.
        """
        for _ in range(COMMIT_CHECKS):
            status = self.read(lambda connection: _transaction_status(connection, transaction_id))
            if status != "in progress":
                return status == "committed"
            self.pause(COMMIT_CHECK_PAUSE_SECONDS)
        raise DatabaseUnavailableError(
            "database: the connection was lost while committing and the server has not finished "
            "yet; the next run goes on from what is stored"
        )


def translate(error: psycopg.Error) -> BillingError:
    """Return the one-line failure for a database error; its text holds no DSN and no row data."""
    detail = _one_line(error)
    if isinstance(error, SCHEMA_MISMATCH):
        return SchemaError(f"the database's schema is not this version's: {detail}; {MIGRATE_HINT}")
    if isinstance(error, pg.InsufficientPrivilege):
        return SchemaError(f"the database role may not do this: {detail}")
    if isinstance(error, UNREACHABLE) or _is_lost_connection(error):
        return DatabaseUnavailableError(f"database: {detail}")
    return BillingError(f"database: {detail}")


def is_transient(error: psycopg.Error) -> bool:
    """Tell whether the same transaction may well succeed when it is tried again."""
    return isinstance(error, TRANSIENT) or _is_lost_connection(error)


class _Progress:
    """What is known of an attempt when it fails."""

    committing = False
    transaction_id = ""
    result: object = None


def _connect(database: Database) -> Connection:
    try:
        return psycopg.connect(
            database.dsn,
            autocommit=True,
            prepare_threshold=None,
            application_name=database.application_name,
            connect_timeout=database.connect_timeout_seconds,
            keepalives_idle=10,
            keepalives_interval=5,
            keepalives_count=3,
            tcp_user_timeout=int(database.statement_timeout_seconds * 1000),
        )
    except psycopg.ProgrammingError:
        # The driver's own text would repeat the string, password and all.
        raise ConfigurationError(
            "DATABASE_URL: not a PostgreSQL URI or libpq keyword string"
        ) from None


def _transaction_status(connection: Connection, transaction_id: str) -> str | None:
    row = connection.execute(TRANSACTION_STATUS, {"transaction_id": transaction_id}).fetchone()
    return row[0] if row else None


@contextmanager
def _signals_wait() -> Iterator[None]:
    """Let a COMMIT end before SIGTERM or SIGINT is acted on: half a commit is no state to be in.

    Handlers are exchanged rather than signals blocked, because a blocked signal would be taken by
    one of the fetching threads and handled here all the same.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    arrived: list[int] = []
    handlers = {
        number: signal.signal(number, lambda received, _frame: arrived.append(received))
        for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    if arrived:
        signal.raise_signal(arrived[0])


def _is_lost_connection(error: psycopg.Error) -> bool:
    if error.sqlstate is None:
        return isinstance(error, psycopg.OperationalError)
    return error.sqlstate.startswith("08")


def _one_line(error: psycopg.Error) -> str:
    """Return the server's primary message, or the driver's without hosts' details after it."""
    message = error.diag.message_primary or str(error) or type(error).__name__
    return " ".join(message.split())
