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
from urllib3.exceptions import ConnectTimeoutError, LocationParseError, NewConnectionError
from urllib3.exceptions import TimeoutError as Urllib3TimeoutError

from billing_cli.exporter.api import ErrorCode, ExporterError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_NOT_FOUND = 404
DENIED = frozenset({401, 403})
_TRANSIENT = frozenset({502, 503, 504})
_REDIRECTS = range(300, 400)


NO_WINDOW = "HTTP 404: the exporter has no windowed snapshots at this address"
USE_ANOTHER_MODE = '; set mode = "auto" or "latest"'


class NotFoundError(ExporterError):
    """The exporter answered 404: it does not have what was asked for."""

    def __init__(self) -> None:
        super().__init__("HTTP 404", code="http_status")


class TooLargeError(ExporterError):
    """The answer exceeds a limit; a page of fewer snapshots may not."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason, code="too_large")


class CutShortError(ExporterError):
    """The answer ended early; exporters close one that takes longer than 10 s to write."""

    def __init__(self) -> None:
        super().__init__("the answer is cut short", code="invalid_answer")


class TransientError(ExporterError):
    """No exporter answered, or only a gateway did; asking again may help."""

    def __init__(self, reason: str, *, code: ErrorCode = "unreachable") -> None:
        super().__init__(reason, code=code, unreachable=True)


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What a reason is worded with.

    `host` is the exporter's `host:port`, `peer` whom the connection leads to (a proxy, where one
    is set), `limit` the time that ran out in words. `connected` says that there was a connection
    when it did, `answered` that an answer had begun: a connection that ends with the answer is
    not `connected` from then on.
    """

    host: str
    peer: str
    limit: str
    connected: bool = False
    answered: bool = False


def exchange_failure(error: BaseException, place: Circumstances) -> ExporterError:
    """Return the reason why a request brought no complete answer."""
    causes = list(_causes(error))
    for kind, reason in _REASONS:
        for cause in causes:
            if isinstance(cause, kind):
                return reason(cause, place)
    what = type(causes[-1]).__name__
    return ExporterError(f"no usable answer from {place.host}: {what}", code="invalid_answer")


def status_failure(status: int) -> ExporterError:
    """Return the reason that an HTTP status other than 200 amounts to."""
    if status == _NOT_FOUND:
        return NotFoundError()
    if status in _TRANSIENT:
        return TransientError(f"HTTP {status}", code="http_status")
    if status in DENIED:
        reason = f"HTTP {status}: the exporter refuses the credentials"
        return ExporterError(reason, code="credentials")
    if status in _REDIRECTS:
        return ExporterError(f"HTTP {status}: redirects are not followed", code="redirect")
    return ExporterError(f"HTTP {status}", code="http_status")


def _untrusted(cause: Any, place: Circumstances) -> ExporterError:
    why = cause.verify_message.rstrip(".")
    return ExporterError(f"certificate of {place.host}: {why}", code="tls", unreachable=True)


def _too_late(cause: Any, place: Circumstances) -> ExporterError:
    is_connected = place.connected or place.answered
    if is_connected and not isinstance(cause, ConnectTimeoutError):
        reason = f"no complete answer from {place.host} {place.limit}"
    else:
        reason = f"no connection to {place.peer} {place.limit}"
    return ExporterError(reason, code="timeout", unreachable=True)


def _no_tls(cause: Any, place: Circumstances) -> ExporterError:
    why = (cause.reason or "protocol error").replace("_", " ").lower()
    return ExporterError(f"TLS with {place.host} failed: {why}", code="tls", unreachable=True)


def _refused_by_proxy(_: Any, place: Circumstances) -> ExporterError:
    reason = f"{place.peer} refuses to connect to {place.host}"
    return ExporterError(reason, code="unreachable", unreachable=True)


def _no_connection(cause: Any, place: Circumstances) -> ExporterError:
    errors = [error for error in _causes(cause) if isinstance(error, OSError) and error.strerror]
    why = _words_of(errors[-1]) if errors else "the host has no address"
    return TransientError(f"connect to {place.peer} failed: {why}")


def _cut_short(_: Any, __: Circumstances) -> ExporterError:
    return CutShortError()


def _broken(cause: Any, place: Circumstances) -> ExporterError:
    if place.answered:
        reason = f"connection to {place.host} broke: {_words_of(cause)}"
        return ExporterError(reason, code="invalid_answer")
    return TransientError(f"{place.host} closed the connection without an answer")


def _no_http(cause: Any, place: Circumstances) -> ExporterError:
    reason = f"{place.host} does not speak HTTP: {type(cause).__name__}"
    return ExporterError(reason, code="invalid_answer")


# The first kind that is found anywhere in the chain decides.
_REASONS: tuple[tuple[Any, Callable[[Any, Circumstances], ExporterError]], ...] = (
    (ssl.SSLCertVerificationError, _untrusted),
    # Before timeouts, of which urllib3 makes it one.
    ((NewConnectionError, LocationParseError), _no_connection),
    (ConnectTimeoutError, _too_late),
    ((TimeoutError, Urllib3TimeoutError), _too_late),
    (ssl.SSLError, _no_tls),
    (requests.exceptions.ProxyError, _refused_by_proxy),
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


def _words_of(error: OSError) -> str:
    return (error.strerror or str(error) or type(error).__name__).lower()
