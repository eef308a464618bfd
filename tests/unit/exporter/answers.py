"""What exporters say in these tests, and how they are asked."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from billing_cli.config.source import Source
from billing_cli.exporter.api import FetchRequest
from billing_cli.exporter.client import fetch
from billing_cli.exporter.limits import Limits

if TYPE_CHECKING:
    from billing_cli.exporter.api import Fetched

NOW = datetime(2026, 4, 8, 12, 30, tzinfo=UTC)
START = datetime(2026, 4, 8, 12, 0, tzinfo=UTC)
ALICE = "11111111-1111-1111-1111-111111111111"
BOB = "22222222-2222-2222-2222-222222222222"
QUICK = Limits(backoff_seconds=0.0)


def sample(uuid: object = ALICE, up: object = 1024, down: object = 2048, **more: Any) -> Any:
    """Return a sample as the contract lays it out; `more` adds keys or replaces them."""
    return {
        "uuid": uuid,
        "email": "user@example.com",
        "inbound_tag": "xhttp-premium",
        "uplink_bytes_total": up,
        "downlink_bytes_total": down,
    } | more


def snapshot(at: datetime | str = START, samples: Any = None, **more: Any) -> dict[str, Any]:
    """Return a snapshot of node jp-1, with one sample unless told otherwise."""
    return {
        "collected_at": at if isinstance(at, str) else stamp(at),
        "node_id": "jp-1",
        "env": "prod",
        "samples": [sample()] if samples is None else samples,
    } | more


def page(snapshots: Any = None, **more: Any) -> dict[str, Any]:
    """Return a window page of node jp-1, with one snapshot unless told otherwise."""
    return {
        "node_id": "jp-1",
        "env": "prod",
        "snapshots": [snapshot()] if snapshots is None else snapshots,
        "has_more": False,
        "next_cursor": None,
    } | more


def without(value: dict[str, Any], *keys: str) -> dict[str, Any]:
    """Return an object that lacks some of its keys."""
    return {key: member for key, member in value.items() if key not in keys}


def encoded(value: Any) -> bytes:
    """Return JSON as bytes, compact as Go writes it."""
    return json.dumps(value, separators=(",", ":")).encode()


def stamp(moment: datetime) -> str:
    """Return a stamp with nine fractional digits, as exporters write it."""
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%f") + "789Z"


def minutes(count: int, *, start: datetime = START, size: int = 1) -> list[dict[str, Any]]:
    """Return one snapshot a minute, each with `size` samples whose totals grow."""
    return [
        snapshot(
            start + timedelta(minutes=number),
            [sample(f"{user:08x}-1111-1111-1111-111111111111", number) for user in range(size)],
        )
        for number in range(count)
    ]


def request(base_url: str, **more: Any) -> FetchRequest:
    """Return a request for the half hour before NOW; `more` are fields of request or source."""
    keys = ("since", "until", "max_samples", "page_limit", "has_watermark")
    bounds = {key: more.pop(key) for key in keys if key in more}
    source = Source(**{"source_id": "jp-1", "base_url": base_url} | more)
    whole: dict[str, Any] = {
        "since": START,
        "until": NOW,
        "max_samples": 1000,
        "page_limit": 60,
    } | bounds
    return FetchRequest(source=source, **whole)


def fetched(base_url: str, *, limits: Limits = QUICK, **more: Any) -> Fetched:
    """Return what one source answers; `more` as in `request`, and what `fetch` takes."""
    arguments: dict[str, Any] = {"environ": {}}
    for key in ("default_token", "environ", "contexts"):
        if key in more:
            arguments[key] = more.pop(key)
    return fetch(
        request(base_url, **more),
        now=NOW,
        deadline=time.monotonic() + 20,
        limits=limits,
        **arguments,
    )
