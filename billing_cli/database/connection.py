"""The session, its transactions, and what their errors mean.

Works through PgBouncer in transaction mode: no prepared statements, no session locks, and no
settings but those that each transaction begins with.
"""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self, TypeVar

import psycopg
from psycopg.pq import TransactionStatus

from billing_cli.database.begin import (
    ONE_STATE,
    ONE_STATE_AND_NOTES,
    READ_COMMITTED,
    Limits,
    beginning,
)
from billing_cli.database.busy import read_table_lock_holders
from billing_cli.database.connecting import connect
from billing_cli.database.failures import DataRefusedError, is_transient, translate
from billing_cli.database.signals import signals_wait
from billing_cli.errors import BillingError, DatabaseUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from psycopg import Connection

    from billing_cli.database.connecting import Database
    from billing_cli.database.patience import PatientConnection

Result = TypeVar("Result")

# What else goes wrong in a pipeline that has failed: the failure itself is reported anyway.
logging.getLogger("psycopg").addFilter(
    lambda record: not str(record.msg).startswith("error ignored terminating")
)

# Whether the transaction whose COMMIT was never answered became durable.
IS_STANDBY = "SELECT pg_is_in_recovery()"
TRANSACTION_STATUS = "SELECT pg_xact_status(%(transaction_id)s::xid8)"

FATE_UNKNOWN = (
    "the connection was lost during COMMIT, and whether it took place is not known yet; "
    "the next run goes on from what is stored"
)

INTRANS, INERROR = TransactionStatus.INTRANS, TransactionStatus.INERROR
ROLLBACK_SECONDS = 1.0
ASK_SECONDS = 2.0

ATTEMPTS = 3
RETRY_PAUSE_SECONDS = 0.1
COMMIT_CHECKS = 10
COMMIT_CHECK_PAUSE_SECONDS = 0.2


class Session:
    """A database connection for the length of a run, opened when first needed.

    `transaction` commits. With `dry_run` everything from the first `transaction` on happens in one
    that is rolled back when the session closes, so that later steps see what earlier ones would
    have written; what is read before that is rolled back at once, and no lock is held meanwhile.
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
        self._connection: PatientConnection[tuple[Any, ...]] | None = None
        self._is_trying = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the connection back; what is not committed is rolled back.

        Locks are free once this returns, as far as the server still answers, so that an attempt
        that follows at once does not find those of the one before.
        """
        connection, self._connection, self._is_trying = self._connection, None, False
        if connection is None:
            return
        try:
            if connection.info.transaction_status in {INTRANS, INERROR}:
                connection.patience_seconds = connection.grace_seconds = ROLLBACK_SECONDS
                with suppress(psycopg.Error):
                    connection.rollback()
        finally:
            connection.close()

    def read(self, work: Callable[[Connection], Result]) -> Result:
        """Do work that bills nothing, each statement on what is committed when it begins.

        Raises as `transaction` does, without trying again.
        """
        return self._read(work, READ_COMMITTED)

    def read_one_state(
        self, work: Callable[[Connection], Result], *, is_writing: bool = False
    ) -> Result:
        """Do work that writes nothing, every statement on the same committed state.

        It blocks no session and takes no part in deadlocks. With `is_writing` it may note what it
        found in tables of its own; that is lost where the commit fails. Raises as `read` does.
        """
        return self._read(work, ONE_STATE_AND_NOTES if is_writing else ONE_STATE)

    def transaction(self, work: Callable[[Connection], Result]) -> Result:
        """Do the work in one transaction and commit it.

        The whole transaction is tried again, on a new connection and at most twice, where the
        server was at fault: serialization failure, deadlock, shutdown, lost connection.
        Where the answer to COMMIT was lost, the server is asked whether it took place before
        anything is repeated. Raises DatabaseUnavailableError where the server can't be reached,
        ConfigurationError where it refuses the connection for good, SchemaError where its schema is
        not ours, BillingError for any other database error.
        """
        began = time.monotonic()
        for attempt in range(1, ATTEMPTS + 1):
            progress = _Progress()
            try:
                return self._attempt(work, progress)
            except psycopg.Error as error:
                self.close()
                _raise_interruption(error)
                if progress.committing and self._became_durable(progress):
                    return progress.result  # type: ignore[return-value]
                # Whoever waited that long in vain leaves the rest to the next run.
                is_late = time.monotonic() - began > self.database.statement_timeout_seconds
                last = attempt == ATTEMPTS or self.dry_run or is_late
                if last or not is_transient(error):
                    raise self._failure(error) from None
            except BaseException:
                self.close()
                raise
            self.pause(RETRY_PAUSE_SECONDS * attempt)
        raise AssertionError("unreachable")

    def _attempt(self, work: Callable[[Connection], Result], progress: _Progress) -> Result:
        self._is_trying = self.dry_run
        connection = self._begin(READ_COMMITTED, numbered=True)
        progress.result = result = work(connection)
        if not self.dry_run:
            *_, progress.transaction_id = connection.last_of_opening() or ("",)
            progress.evidence = connection.evidence
            with signals_wait():
                progress.committing = True
                connection.commit()
        return result

    def _read(self, work: Callable[[Connection], Result], mode: str) -> Result:
        try:
            connection = self._begin(mode)
            result = work(connection)
        except psycopg.Error as error:
            self.close()
            _raise_interruption(error)
            raise self._failure(error) from None
        except BaseException:
            self.close()
            raise
        if not self._is_trying:
            try:
                (connection.rollback if self.dry_run else connection.commit)()
            except psycopg.Error:
                self.close()  # What was read is ours all the same.
        return result

    def _failure(self, error: psycopg.Error) -> BillingError:
        """Return the failure for an error; where a lock was waited for, with who holds it."""
        failure = translate(error, self.database.application_name)
        is_waiting = isinstance(error, psycopg.errors.LockNotAvailable)
        if not is_waiting or isinstance(failure, DataRefusedError):
            return failure
        try:
            with connect(self.database) as connection:
                connection.begin(
                    beginning(ONE_STATE, Limits(ASK_SECONDS, ASK_SECONDS, ASK_SECONDS))
                )
                holders = read_table_lock_holders(connection)
        except (psycopg.Error, BillingError):
            return failure
        text = f"{failure}; tables are locked by {holders}" if holders else str(failure)
        return BillingError(text, failure.code)

    def _begin(self, mode: str, *, numbered: bool = False) -> PatientConnection[tuple[Any, ...]]:
        """Return a connection whose transaction begins with the next statement.

        All that a dry run tries is one transaction.
        """
        connection = self._open()
        if connection.info.transaction_status != TransactionStatus.INTRANS:
            seconds = self.database.statement_timeout_seconds
            # A dry run keeps its transaction open while it fetches.
            idle_seconds = 0 if self.dry_run else seconds
            limits = Limits(seconds, self.database.lock_timeout_seconds, idle_seconds)
            connection.begin(beginning(mode, limits, numbered=numbered))
        return connection

    def _open(self) -> PatientConnection[tuple[Any, ...]]:
        if self._connection is None:
            self._connection = connect(self.database)
        return self._connection

    def _became_durable(self, progress: _Progress) -> bool:
        """Find out whether a transaction committed although its answer never came.

        While the server still works on it, neither answer is true yet.
        """
        for _ in range(COMMIT_CHECKS):
            try:
                is_durable = self.read(lambda connection: _is_durable(connection, progress))
            except DatabaseUnavailableError as error:
                raise DatabaseUnavailableError(f"{error}; {FATE_UNKNOWN}") from None
            if is_durable is not None:
                return is_durable
            self.pause(COMMIT_CHECK_PAUSE_SECONDS)
        raise DatabaseUnavailableError(f"database: {FATE_UNKNOWN}")


def _raise_interruption(error: psycopg.Error) -> None:
    """Raise the signal that interrupted a pipeline, which then fails as it ends."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, KeyboardInterrupt):
            raise cause from None
        cause = cause.__context__


class _Progress:
    """What is known of an attempt when it fails."""

    committing = False
    transaction_id = ""
    evidence: tuple[str, Mapping[str, Any]] | None = None
    result: object = None


def _is_durable(connection: Connection, progress: _Progress) -> bool | None:
    """Return whether a transaction took place; None where the server can't know yet.

    A replica that was promoted may never have heard of it: it is then lost with the old primary.
    Or it may have given the number to another transaction: so what counts is a row that only this
    one wrote, if it wrote such a row. What a standby has not heard of may still come.
    """
    (is_standby,) = connection.execute(IS_STANDBY).fetchone() or (None,)
    number = {"transaction_id": progress.transaction_id}
    try:
        (status,) = connection.execute(TRANSACTION_STATUS, number).fetchone() or (None,)
    except psycopg.errors.InvalidParameterValue:
        status = "aborted"
    if status == "in progress":
        return None
    # After the status: a statement does not see what is committed while it runs.
    if status == "committed" and (
        progress.evidence is None or connection.execute(*progress.evidence).fetchone()
    ):
        return True
    return None if is_standby else False
