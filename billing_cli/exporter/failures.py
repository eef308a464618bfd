"""Why there is no answer: one line each, from exceptions that libraries wrap in one another.

Only the types of exceptions and the words of the system are used, never a library's own text:
that may quote addresses, headers or what a server sent.
"""

from __future__ import annotations

import http.client
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import requests
from urllib3.exceptions import TimeoutError as Urllib3TimeoutError

from billing_cli.exporter.api import ExporterError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_NOT_FOUND = 404
DENIED = frozenset({401, 403})
_PASSING = frozenset({502, 503, 504})
_REDIRECTS = range(300, 400)


class NotFoundError(ExporterError):
    """The exporter answered 404: it does not have what was asked for."""


class TooLongError(ExporterError):
    """The answer is longer than any may be; a shorter page may do."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"the answer is longer than {limit} bytes")


class PassingError(ExporterError):
    """Nobody answered, or only a gateway; asking again may help."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason, unreachable=True)


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What a reason is worded with.

    `host` is the exporter's `host:port`, `peer` whom the connection leads to (a proxy, where one
    is set), `limit` the time that ran out in words, and `answered` tells whether a status line
    had arrived.
    """

    host: str
    peer: str
    limit: str
    answered: bool = False


def connect_failure(error: OSError, place: Circumstances) -> ExporterError:
    """Return the reason why no connection came about."""
    if isinstance(error, TimeoutError):
        return ExporterError(f"no connection to {place.peer} {place.limit}", unreachable=True)
    return PassingError(f"connect to {place.peer} failed: {_said(error)}")


def exchange_failure(error: BaseException, place: Circumstances) -> ExporterError:
    """Return the reason why a connection brought no complete answer."""
    causes = list(_causes(error))
    for kind, reason in _REASONS:
        for cause in causes:
            if isinstance(cause, kind):
                return reason(cause, place)
    what = type(causes[-1]).__name__
    return ExporterError(f"no usable answer from {place.host}: {what}")


def status_failure(status: int) -> ExporterError:
    """Return the reason that an HTTP status other than 200 amounts to."""
    if status == _NOT_FOUND:
        return NotFoundError("HTTP 404")
    if status in _PASSING:
        return PassingError(f"HTTP {status}")
    if status in DENIED:
        return ExporterError(f"HTTP {status}: the exporter refuses the credentials")
    if status in _REDIRECTS:
        return ExporterError(f"HTTP {status}: redirects are not followed")
    return ExporterError(f"HTTP {status}")


def _untrusted(cause: Any, place: Circumstances) -> ExporterError:
    why = cause.verify_message.rstrip(".")
    return ExporterError(f"certificate of {place.host}: {why}", unreachable=True)


def _too_late(_: Any, place: Circumstances) -> ExporterError:
    reason = f"no complete answer from {place.host} {place.limit}"
    return ExporterError(reason, unreachable=True)


def _no_tls(cause: Any, place: Circumstances) -> ExporterError:
    why = (cause.reason or "protocol error").replace("_", " ").lower()
    return ExporterError(f"TLS with {place.host} failed: {why}", unreachable=True)


def _no_way_through(_: Any, place: Circumstances) -> ExporterError:
    return ExporterError(f"{place.peer} refuses to connect to {place.host}", unreachable=True)


def _cut_short(_: Any, __: Circumstances) -> ExporterError:
    return ExporterError("the answer is cut short")


def _broken(cause: Any, place: Circumstances) -> ExporterError:
    if place.answered:
        return ExporterError(f"connection to {place.host} broke: {_said(cause)}")
    return PassingError(f"{place.host} closed the connection without an answer")


def _no_http(cause: Any, place: Circumstances) -> ExporterError:
    return ExporterError(f"{place.host} does not speak HTTP: {type(cause).__name__}")


# The first kind that is found anywhere in the chain decides.
_REASONS: tuple[tuple[Any, Callable[[Any, Circumstances], ExporterError]], ...] = (
    (ssl.SSLCertVerificationError, _untrusted),
    ((TimeoutError, Urllib3TimeoutError), _too_late),
    (ssl.SSLError, _no_tls),
    (requests.exceptions.ProxyError, _no_way_through),
    (http.client.IncompleteRead, _cut_short),
    (ConnectionError, _broken),
    (http.client.HTTPException, _no_http),
)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and everything that it wraps, in any of the ways that libraries do."""
    waiting: list[Any] = [error]
    seen: set[int] = set()
    while waiting:
        cause = waiting.pop(0)
        if not isinstance(cause, BaseException) or id(cause) in seen:
            continue
        seen.add(id(cause))
        yield cause
        waiting += [cause.__cause__, cause.__context__, getattr(cause, "reason", None), *cause.args]


def _said(error: OSError) -> str:
    return (error.strerror or str(error) or type(error).__name__).lower()
