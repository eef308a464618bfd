"""Exporters that answer what a test puts at their addresses, and how they are probed."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from billing_cli.config.source import Source
from billing_cli.exporter.probe import probe
from tests.unit.exporter.answers import QUICK, encoded, page, snapshot
from tests.unit.exporter.servers import http

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from billing_cli.core.source_facts import SourceFacts
    from tests.unit.exporter.servers import Visit

NOW = datetime(2026, 4, 8, 12, 30, tzinfo=UTC)
OLDEST = NOW - timedelta(hours=71)
NEWEST = NOW - timedelta(seconds=20)
NOT_FOUND = http(b"{}", status="404 Not Found")


def exporter(
    *, window: Any = None, latest: bytes | None = None, date: datetime | None = None
) -> Callable[[Visit], None]:
    """Return a script for a server that has these two addresses.

    `window` is an answer, or makes one of the query; None is 404, as for `latest`. The answers
    are stamped with a date where one is given.
    """

    def script(visit: Visit) -> None:
        url = urlsplit(visit.head.split()[1])
        content = latest
        if url.path.endswith("/window"):
            query = {key: value for key, (value,) in parse_qs(url.query).items()}
            content = window(query) if callable(window) else window
        more = {} if date is None else {"Date": http_date(date)}
        visit.send(NOT_FOUND if content is None else http(content, headers=more))

    return script


def windowed(*stamps: datetime) -> Callable[[Mapping[str, str]], bytes]:
    """Return the window of an exporter with a snapshot at each of the times."""

    def answer(query: Mapping[str, str]) -> bytes:
        since, until = (datetime.fromisoformat(query[key]) for key in ("since", "until"))
        found = [stamp for stamp in stamps if since <= stamp <= until]
        start = int(query.get("cursor", "0"))
        end = start + int(query["limit"])
        more = {"has_more": True, "next_cursor": str(end)} if end < len(found) else {}
        snapshots = [snapshot(one) for one in found[start:end]]
        return encoded(page(snapshots, **({} if snapshots else {"node_id": "", "env": ""}), **more))

    return answer


def http_date(moment: datetime) -> str:
    """Return a time as HTTP headers have it."""
    return moment.strftime("%a, %d %b %Y %H:%M:%S GMT")


def probed(base_url: str, **more: Any) -> SourceFacts:
    """Return what probing shows; `more` are fields of the source, or what `probe` takes."""
    taken = {key: more.pop(key) for key in ("default_token", "environ", "limits") if key in more}
    return probe(
        Source(**{"source_id": "jp-1", "base_url": base_url} | more),
        now=NOW,
        deadline=time.monotonic() + 20,
        **{"environ": {}, "limits": QUICK} | taken,
    )
