"""One source's HTTP: a GET that ends in a body or in one line that says why not."""

from __future__ import annotations

import contextlib
import logging
import time
from typing import TYPE_CHECKING, NamedTuple

import requests
from urllib3.exceptions import HTTPError

from billing_cli import __version__
from billing_cli.exporter.body import Body, receive
from billing_cli.exporter.connection import DeadlineAdapter
from billing_cli.exporter.failures import (
    Circumstances,
    PassingError,
    connect_failure,
    exchange_failure,
    status_failure,
)
from billing_cli.exporter.sockets import ConnectError, Deadline

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator, Mapping

    from billing_cli.exporter.address import Endpoint
    from billing_cli.exporter.credentials import SecretToken
    from billing_cli.exporter.limits import Limits

# Its warnings quote what servers sent, and what a server sends may be the token that it was sent.
logging.getLogger("urllib3").setLevel(logging.CRITICAL + 1)

_OK = 200


class StatusLine(NamedTuple):
    """What an answer began with: its status, its Date as it came, and the monotonic second."""

    status: int
    date: str
    arrived_at: float


class Transport:
    """Sends one source's requests, over one kept connection where the exporter allows it.

    `timeout_seconds` bounds each request as a whole, from looking up the name to the last byte of
    the body and with all its retries; `run_deadline` (monotonic seconds) bounds them all.
    `last_status` is what the last answer began with, whatever became of it.
    """

    last_status: StatusLine | None = None

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
    ) -> None:
        self._endpoint = endpoint
        self._token = token
        self._timeout_seconds = timeout_seconds
        self._run_deadline = run_deadline
        self._limits = limits
        self._deadline = Deadline(run_deadline)
        self._peer = endpoint.label if proxy_url is None else f"the proxy {proxy_url}"
        self._proxies = {} if proxy_url is None else {"http": proxy_url, "https": proxy_url}
        self._adapter = DeadlineAdapter(
            context=context, server_name=server_name, deadline=self._deadline
        )

    def close(self) -> None:
        """Close the connection."""
        self._adapter.close()

    @contextlib.contextmanager
    def get(self, path: str, parameters: Mapping[str, str]) -> Iterator[Body]:
        """Yield the body of a 200 answer.

        Raises NotFoundError for 404 and ExporterError for everything else that is not a complete
        answer within the time. Connect errors and 502, 503, 504 are tried again a few times.
        """
        self._deadline.at = min(time.monotonic() + self._timeout_seconds, self._run_deadline)
        for attempt in range(self._limits.retries + 1):
            try:
                body = self._get_once(path, parameters)
                break
            except PassingError:
                pause = self._limits.backoff_seconds * 2**attempt
                if attempt == self._limits.retries or not self._time_for(pause):
                    raise
                time.sleep(pause)
        with body:
            yield body

    def _get_once(self, path: str, parameters: Mapping[str, str]) -> Body:
        headers = {
            "Accept": "application/json",
            "Accept-Encoding": "gzip, identity",
            "User-Agent": f"billing/{__version__}",
        }
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token.reveal()}"
        url = self._endpoint.url(path)
        answered = False
        with contextlib.ExitStack() as on_failure:
            try:
                request = requests.Request("GET", url, headers, params=parameters).prepare()
                # The adapter alone, without a session: it follows nothing, remembers nothing.
                response = self._adapter.send(
                    request, stream=True, timeout=self._deadline.remaining(), proxies=self._proxies
                )
                with contextlib.closing(response):
                    self.last_status = StatusLine(
                        response.status_code, response.headers.get("Date", ""), time.monotonic()
                    )
                    if response.status_code != _OK:
                        raise status_failure(response.status_code)
                    answered = True
                    body = on_failure.enter_context(Body(self._limits.spool_bytes))
                    encoding = response.headers.get("Content-Encoding", "")
                    receive(body, response.raw, encoding, self._limits)
            except ConnectError as error:
                raise connect_failure(error.error, self._place(answered=False)) from None
            except (requests.RequestException, HTTPError, OSError) as error:
                raise exchange_failure(error, self._place(answered=answered)) from None
            on_failure.pop_all()
        return body

    def _time_for(self, pause: float) -> bool:
        return time.monotonic() + pause < self._deadline.at

    def _place(self, *, answered: bool) -> Circumstances:
        limit = (
            "before the run's deadline"
            if self._deadline.at >= self._run_deadline
            else f"within {self._timeout_seconds:g} s"
        )
        return Circumstances(self._endpoint.label, self._peer, limit, answered)
