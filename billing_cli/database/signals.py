"""Signals that come while a transaction is committed."""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from billing_cli.errors import ENDING_SIGNALS

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def signals_wait() -> Iterator[None]:
    """Let a COMMIT end before a signal is acted on: half a commit is no state to be in.

    Handlers are exchanged rather than signals blocked, because a blocked signal would be taken by
    one of the fetching threads and handled here all the same.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    arrived: list[int] = []
    handlers = {
        number: signal.signal(number, lambda received, _frame: arrived.append(received))
        for number in ENDING_SIGNALS
    }
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    if arrived:
        signal.raise_signal(arrived[0])
