"""A connection that does not wait for ever, and hands over what it can while others compute.

`statement_timeout` is kept by the server, so it is of no help where the server itself hangs, nor
where a tunnel or pooler in between stays up while the line behind it is dead. TCP keepalives end
at that tunnel as well. So this side counts too, and gives the server a little longer.
"""

from __future__ import annotations

import math
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar

import psycopg
from psycopg.pq import PipelineStatus
from psycopg.rows import Row
from psycopg.waiting import Ready, Wait

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping, Sequence

Result = TypeVar("Result")


class PatientConnection(psycopg.Connection[Row]):
    """Waits for each answer for `patience_seconds`, then cancels, and hangs up after `grace`.

    A statement that can be cancelled raises QueryCanceled; one without an answer even to that
    raises OperationalError, and the connection is closed.

    Within `pipeline()` a statement is on its way to the server when `execute` returns, and its
    answer comes later: the server works on it while the next one is made.
    """

    patience_seconds: float = math.inf
    grace_seconds: float = 5.0
    evidence: tuple[str, Mapping[str, Any]] | None = None
    """A query, with its parameters, that has a row if the open transaction took place."""
    _opening: Sequence[str] = ()
    _opened: psycopg.Cursor[Row] | None = None

    def begin(self, statements: Sequence[str]) -> None:
        """Begin a transaction with its first statement, in one round trip where that can be.

        The connection must be in autocommit mode, so that the driver sends no BEGIN of its own.
        """
        self._opening, self._opened, self.evidence = statements, None, None

    def last_of_opening(self) -> Row | None:
        """Return the row of the last statement that began the transaction, if it has begun."""
        return self._opened.fetchone() if self._opened else None

    def cursor(self, *arguments: Any, **options: Any) -> Any:
        """Return a cursor; outside of a pipeline the transaction has begun then."""
        if self._opening:
            opening, self._opening = ";".join(self._opening), ()
            self._opened = self.execute(opening.encode())
            while self._opened.nextset():
                pass
        return super().cursor(*arguments, **options)

    @contextmanager
    def pipeline(self) -> Iterator[psycopg.Pipeline]:
        """Send the statements of the block in one round trip."""
        with super().pipeline() as pipeline:
            opening, self._opening = self._opening, ()
            for statement in opening:
                self._opened = self.execute(statement.encode())
            yield pipeline

    @contextmanager
    def transaction(self, *arguments: Any, **options: Any) -> Iterator[psycopg.Transaction]:
        """Execute the block within a savepoint."""
        self.cursor().close()
        with super().transaction(*arguments, **options) as transaction:
            yield transaction

    def execute(self, *arguments: Any, **options: Any) -> psycopg.Cursor[Row]:
        """Execute a statement, or within a pipeline send all of it."""
        cursor = super().execute(*arguments, **options)
        if self.pgconn.pipeline_status != PipelineStatus.OFF:
            # Left alone, the driver would send the rest of a large statement with the next one;
            # and the server would keep its answers until all is done, which looks like silence.
            self.pgconn.send_flush_request()
            self.wait(self._all_sent())
            # The parameters, which the driver would keep as long as we keep the cursor.
            cursor._query = None  # noqa: SLF001
        return cursor

    def wait(self, gen: Generator[Any, Any, Result], *arguments: Any, **options: Any) -> Result:
        """Consume what the driver wants to wait for."""
        # Raises where the connection is lost already: what has not begun need not be cleaned up.
        _ = self.pgconn.socket
        try:
            # Each row of a COPY comes by here, and most of them have arrived: half of its time.
            state = next(gen)
        except StopIteration as end:
            result: Result = end.value
            return result
        try:
            return super().wait(self._bounded(gen, state), *arguments, **options)
        finally:
            # Where the socket is gone, what the driver was about to do ends with it. Left to the
            # garbage collector, a pipeline would print a traceback as it fails once more.
            with suppress(psycopg.Error):
                gen.close()

    def _bounded(
        self, gen: Generator[Any, Any, Result], state: object
    ) -> Generator[Any, Any, Result]:
        # The driver looks in ten times a second, also when nothing has come.
        deadline = time.monotonic() + self.patience_seconds
        is_cancelled = False
        try:
            while True:
                ready = yield state
                if ready and not is_cancelled:
                    deadline = time.monotonic() + self.patience_seconds
                elif not ready and time.monotonic() > deadline:
                    if is_cancelled:
                        self.close()
                        raise psycopg.OperationalError("the server has stopped answering")
                    is_cancelled = True
                    self._cancel()
                    deadline = time.monotonic() + self.grace_seconds
                state = gen.send(ready)
        except StopIteration as end:
            result: Result = end.value
            return result

    def _all_sent(self) -> Generator[Wait, Ready, None]:
        # A server that has answers for us may not read on before we have taken them.
        while self.pgconn.flush():
            ready = yield Wait.RW
            if ready & Ready.R:
                self.pgconn.consume_input()

    def _cancel(self) -> None:
        # Older libraries cancel without a limit to their own waiting.
        if psycopg.capabilities.has_cancel_safe():
            with suppress(psycopg.Error):
                self.cancel_safe(timeout=self.grace_seconds)
