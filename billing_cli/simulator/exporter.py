"""Exporters that live: simulated nodes whose counters grow with the clock of this machine."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from billing_cli.core.times import minute_of
from billing_cli.simulator.server import serve
from billing_cli.simulator.traffic import Fleet

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from billing_cli.simulator.traffic import User

ACCOUNTS = 5
INBOUND_TAG = "xhttp"


def accounts_of(count: int, seed: int = 7) -> list[User]:
    """Return the accounts that use each node: the same in every process."""
    fleet = Fleet(seed)
    return [fleet.add_user() for _ in range(count)]


def live_fleet(nodes: Sequence[str], accounts: int, history: timedelta, now: datetime) -> Fleet:
    """Return a fleet with a history that ends now, a snapshot a minute."""
    fleet = Fleet(start=minute_of(now) - history)
    for source_id in nodes:
        node = fleet.add_node(source_id)
        for user in accounts_of(accounts):
            node.add_stream(user.uuid, INBOUND_TAG)
    fleet.run(now)
    return fleet


def run_exporters(
    nodes: Sequence[str],
    accounts: int,
    history: timedelta,
    address: tuple[str, int],
    on_start: Callable[[str], None],
) -> None:
    """Serve the nodes until a signal ends the process; each is known by its base_url."""
    fleet = live_fleet(nodes, accounts, history, datetime.now(UTC))
    with serve(fleet, address=address) as running:
        for source_id in nodes:
            on_start(running.base_url(source_id))
        waiting = threading.Event()
        while not waiting.wait(1.0):
            fleet.run(datetime.now(UTC))
