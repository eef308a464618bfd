"""Reporting to a dead-man switch that a run has begun, and with which exit status it ended.

Such a service raises the alarm when no ping comes: when the timer, the machine or the network is
down, which is when nothing here could raise one.
"""

from __future__ import annotations

import queue
import signal
import threading
import time
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from billing_cli import __version__
from billing_cli.exporter.api import ExporterError
from billing_cli.exporter.tls import verifying_context

if TYPE_CHECKING:
    import ssl

START = "start"

# What a run may wait for at its end, for both pings together. At its begin it waits for nothing.
# No single operation of the network may take longer either, so that a begin that is not accepted
# does not keep the end from being reported.
MAX_WAIT_SECONDS = 1.8

SUCCESS_STATUSES = range(200, 300)


class Pinger:
    """Sends `URL/start` and `URL/<exit status>`, one after the other, while the run goes on.

    All of it happens on a thread of its own, which the process leaves behind where looking up a
    name, or a server that drips, takes too long. Nothing is sent but the address itself, and the
    address, which is a secret, is in no text that comes from here.
    """

    def __init__(
        self,
        url: str,
        *,
        max_wait_seconds: float = MAX_WAIT_SECONDS,
        tls_context: ssl.SSLContext | None = None,
    ) -> None:
        self._url = url
        self._max_wait_seconds = max_wait_seconds
        self._tls_context = tls_context
        self._statuses: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self._problems: list[str] = []
        self._thread = threading.Thread(target=self._work, name="ping", daemon=True)
        self._deadline = 0.0

    def begin(self) -> None:
        """Report the begin of a run, without waiting."""
        # Signals are for the main thread, which at times holds them back: a thread that does
        # not would take them in its stead.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            self._thread.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def end(self, exit_status: int | None) -> None:
        """Report the end of the run, without waiting; None says nothing about how it ended."""
        self._deadline = time.monotonic() + self._max_wait_seconds
        self._statuses.put(exit_status)

    def wait(self) -> tuple[str, ...]:
        """Wait until all is sent, but not for long; return what went wrong, each as one line."""
        self._thread.join(max(0.0, self._deadline - time.monotonic()))
        late = ("no answer in time",) if self._thread.is_alive() else ()
        return (*self._problems, *late)

    def _work(self) -> None:
        self._send(START)
        status = self._statuses.get()
        if status is not None:
            self._send(str(status))

    def _send(self, word: str) -> None:
        try:
            answer = self._get(word)
        except TimeoutError:
            self._problems.append(f"{word}: no answer in time")
        except ExporterError as error:
            self._problems.append(f"{word}: {error.reason}")
        except OSError as error:
            self._problems.append(f"{word}: {error.strerror or type(error).__name__}")
        except (HTTPException, ValueError) as error:
            # Its own text may repeat what the server sent, or the address.
            self._problems.append(f"{word}: {type(error).__name__}")
        else:
            if answer not in SUCCESS_STATUSES:
                self._problems.append(f"{word}: HTTP status {answer}")

    def _get(self, word: str) -> int:
        parts = urlsplit(self._url)
        host = parts.hostname or ""
        connection = (
            HTTPSConnection(
                host,
                parts.port,
                timeout=self._max_wait_seconds,
                context=self._tls_context or verifying_context(None),
            )
            if parts.scheme == "https"
            else HTTPConnection(host, parts.port, timeout=self._max_wait_seconds)
        )
        try:
            headers = {"User-Agent": f"billing/{__version__}", "Connection": "close"}
            connection.request("GET", f"{parts.path.rstrip('/')}/{word}", headers=headers)
            return connection.getresponse().status
        finally:
            connection.close()
