"""What happens to a job between two of its statements: it is killed, cut off, or overtaken."""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psycopg

from billing_cli.database import connection
from billing_cli.errors import InterruptedBySignalError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Strike = Callable[[psycopg.Connection[Any]], None]

_here = threading.local()


class Watch:
    """Counts a job's statements, its COMMIT included, and strikes once before or after one."""

    def __init__(self, at: int = 0, strike: Strike | None = None, *, after: bool = False) -> None:
        self.at = at
        self.strike = strike
        self.after = after
        self.statements = 0
        self.has_struck = False

    def passed(self, session: psycopg.Connection[Any], *, is_done: bool) -> None:
        """Take note of a statement that is about to be sent, or has been answered for."""
        self.statements += not is_done
        is_here = self.statements == self.at and is_done == self.after
        if self.strike is not None and is_here and not self.has_struck:
            self.has_struck = True
            self.strike(session)


@contextmanager
def watched(watch: Watch) -> Iterator[Watch]:
    """Let the watch see all statements of this thread as long as the block lasts."""
    _here.watch = watch
    try:
        yield watch
    finally:
        del _here.watch


@contextmanager
def watching() -> Iterator[None]:
    """Make statements visible to watches as long as the block lasts; nobody pauses meanwhile."""
    pause, connection.RETRY_PAUSE_SECONDS = connection.RETRY_PAUSE_SECONDS, 0.0
    execute: Any = psycopg.Cursor.execute
    commit: Any = psycopg.Connection.commit

    def watched_execute(cursor: Any, *arguments: Any, **options: Any) -> Any:
        watch = getattr(_here, "watch", None)
        if watch is None:
            return execute(cursor, *arguments, **options)
        watch.passed(cursor.connection, is_done=False)
        result = execute(cursor, *arguments, **options)
        watch.passed(cursor.connection, is_done=True)
        return result

    def watched_commit(session: Any) -> None:
        watch = getattr(_here, "watch", None)
        if watch is None:
            commit(session)
            return
        watch.passed(session, is_done=False)
        commit(session)
        watch.passed(session, is_done=True)

    psycopg.Cursor.execute = watched_execute  # type: ignore[method-assign,assignment]
    psycopg.Connection.commit = watched_commit  # type: ignore[method-assign,assignment]
    try:
        yield
    finally:
        connection.RETRY_PAUSE_SECONDS = pause
        psycopg.Cursor.execute = execute  # type: ignore[method-assign]
        psycopg.Connection.commit = commit  # type: ignore[method-assign]


def killed(session: psycopg.Connection[Any]) -> None:  # noqa: ARG001 - the shape of `Strike`
    """End the run, as SIGTERM does."""
    raise InterruptedBySignalError(signal.SIGTERM)


def cut_off(admin: psycopg.Connection[Any]) -> Strike:
    """Return what ends the job's own session on the server, without its knowing."""

    def strike(session: psycopg.Connection[Any]) -> None:
        admin.execute("SELECT pg_terminate_backend(%s, 5000)", (session.info.backend_pid,))

    return strike
