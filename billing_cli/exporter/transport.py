"""HTTP with one source: a GET that ends in a body, or in one line that says why not."""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from typing import TYPE_CHECKING, NamedTuple

import requests

from billing_cli import __version__
from billing_cli.exporter.api import ExporterError
from billing_cli.exporter.body import Body, receive
from billing_cli.exporter.connections import Adapter
from billing_cli.exporter.failures import (
    Circumstances,
    TransientError,
    exchange_failure,
    status_failure,
)

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator, Mapping

    from billing_cli.exporter.address import Endpoint
    from billing_cli.exporter.credentials import SecretToken
    from billing_cli.exporter.limits import Limits

# Its warnings quote what servers sent, and what a server sends may be the token that it was sent.
logging.getLogger("urllib3").setLevel(logging.CRITICAL + 1)

_OK = 200


class Head(NamedTuple):
    """What an answer began with.

    `date` is the header as it came, `arrived_at` the monotonic second.
    """

    status: int
    date: str
    arrived_at: float


class Transport:
    """Sends one source's requests, over one kept connection where the exporter allows it.

    `timeout_seconds` bounds each request as a whole, from looking up the name to the last byte of
    the body and with all its retries; `run_deadline` (monotonic seconds) bounds them all.
    `last_head` is what the last answer began with, however it ended.
    """

    last_head: Head | None = None

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        context: ssl.SSLContext | None,
        server_name: str | None,
        proxy_url: str | None,
        token: SecretToken | None,
        timeout_seconds: float,
        run_deadline: float,
        limits: Limits,
        pins: tuple[str, ...] = (),
    ) -> None:
        self._endpoint = endpoint
        self._timeout_seconds = timeout_seconds
        self._run_deadline = run_deadline
        self._limits = limits
        self._peer = endpoint.label if proxy_url is None else f"the proxy {proxy_url}"
        self._proxies = {} if proxy_url is None else {"http": proxy_url, "https": proxy_url}
        self._adapter = Adapter(context, server_name, pins)
        self._headers = {
            "Accept": "application/json",
            "Accept-Encoding": "gzip, identity",
            "User-Agent": f"billing/{__version__}",
        }
        if token is not None:
            self._headers["Authorization"] = f"Bearer {token.reveal()}"

    @property
    def handshake(self) -> tuple[str | None, bytes | None]:
        """TLS version and certificate (DER) of the last connection; None without TLS."""
        return self._adapter.handshake

    def close(self) -> None:
        """Close the connection."""
        self._adapter.close()

    @contextlib.contextmanager
    def get(self, path: str, parameters: Mapping[str, str]) -> Iterator[Body]:
        """Yield the body of a 200 answer.

        Raises NotFoundError for 404 and ExporterError for everything else that is not a complete
        answer within the time. Connect errors and 502, 503, 504 are tried again a few times.
        """
        deadline = min(time.monotonic() + self._timeout_seconds, self._run_deadline)
        for attempt in range(self._limits.retries + 1):
            try:
                body = self._get_by(deadline, path, parameters)
                break
            except TransientError:
                pause = self._limits.backoff_seconds * 2**attempt
                if attempt == self._limits.retries or time.monotonic() + pause >= deadline:
                    raise
                time.sleep(pause)
        with body:
            yield body

    def _get_by(self, deadline: float, path: str, parameters: Mapping[str, str]) -> Body:
        """Return the body, or abandon the exchange at the deadline and shut its socket down.

        A read timeout bounds single reads, and nothing bounds looking up a name: an exporter that
        sends a header byte by byte, or `100 Continue` for ever, would never run into it. So the
        exchange has a thread of its own, which ends once its socket is shut down.
        """
        exchange = _Exchange()
        is_connected = True
        left = max(0.001, deadline - time.monotonic())
        threading.Thread(
            target=self._run, args=(exchange, path, parameters, left), name="exchange", daemon=True
        ).start()
        try:
            result = exchange.outcome.get(timeout=left)
        except queue.Empty:
            result = TimeoutError()
            is_connected = self._adapter.is_connected
            self._adapter.hang_up()
        if isinstance(result, Body):
            return result
        limit = f"within {self._timeout_seconds:g} s"
        if deadline >= self._run_deadline:
            limit = "before the run's deadline"
        place = Circumstances(
            self._endpoint.label, self._peer, limit, is_connected, exchange.answered
        )
        try:
            if isinstance(result, ExporterError):
                raise result
            raise exchange_failure(result, place) from None
        finally:
            del result  # Its traceback leads here: a cycle, which would keep the socket open.

    def _run(
        self, exchange: _Exchange, path: str, parameters: Mapping[str, str], seconds: float
    ) -> None:
        """Put the body into the exchange's outcome, or what was raised instead."""
        body = Body(self._limits.spool_bytes)
        try:
            self._receive(body, exchange, path, parameters, seconds)
        except BaseException as error:  # noqa: BLE001 - raised again where the outcome is read
            body.close()
            exchange.outcome.put(error)
        else:
            exchange.outcome.put(body)

    def _receive(
        self,
        body: Body,
        exchange: _Exchange,
        path: str,
        parameters: Mapping[str, str],
        seconds: float,
    ) -> None:
        url = self._endpoint.url(path)
        request = requests.Request("GET", url, self._headers, params=parameters).prepare()
        # The adapter alone, without a session: it follows no redirect, keeps no cookie and reads
        # no environment. A host may have a second address, which needs its share of the time.
        response = self._adapter.send(
            request, stream=True, timeout=(seconds / 2, seconds), proxies=self._proxies
        )
        with contextlib.closing(response):
            self.last_head = Head(
                response.status_code,
                response.headers.get("Date", ""),
                time.monotonic(),
            )
            if response.status_code != _OK:
                raise status_failure(response.status_code)
            exchange.answered = True
            encoding = response.headers.get("Content-Encoding", "")
            receive(body, response.raw, encoding, self._limits)


class _Exchange:
    """One request in progress: its outcome, and how far it got."""

    def __init__(self) -> None:
        self.outcome: queue.SimpleQueue[Body | BaseException] = queue.SimpleQueue()
        self.answered = False
