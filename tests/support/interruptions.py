"""Runs that are ended by a signal at a chosen statement."""

from __future__ import annotations

import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from billing_cli.errors import InterruptedBySignalError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def interrupted_everywhere(work: Callable[[], object]) -> Iterator[int]:
    """Do the work again and again, ended before its first, second, ... statement.

    Yields after each interruption the number of statements that were let through, and ends when
    the work came to its end.
    """
    statements = 0
    while True:
        with _ended_after(statements):
            try:
                work()
            except InterruptedBySignalError:
                pass
            else:
                return
        yield statements
        statements += 1


@contextmanager
def _ended_after(statements: int) -> Iterator[None]:
    left = statements
    execute: Any = psycopg.Connection.execute

    def counted(connection: Any, *arguments: Any, **options: Any) -> Any:
        nonlocal left
        if left == 0:
            raise InterruptedBySignalError(signal.SIGTERM)
        left -= 1
        return execute(connection, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(psycopg.Connection, "execute", counted)
        yield
