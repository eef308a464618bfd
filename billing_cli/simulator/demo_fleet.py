"""The fleet of the demo: three nodes, 25 accounts, and half an hour in which much goes wrong."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

from billing_cli.simulator.invariants import Funds
from billing_cli.simulator.server import Endpoint
from billing_cli.simulator.traffic import Fleet

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from billing_cli.simulator.traffic import User

USERS = 25
MIB = 1024 * 1024
MINUTE = timedelta(minutes=1)

DESCRIPTION = """\
25 accounts use three nodes; the simulator counts every byte. In this half hour:
  jp-1  is polled every 15 seconds; after 20 minutes xray restarts and its counters begin at 0
        again; user-001 comes in through two inbounds
  us-1  its exporter is down for six minutes, while traffic flows on
  de-1  counts by proxy uuid; one of them has no account yet, another is renewed half-way
Exporters answer five snapshots a page. user-002 is idle, user-003 has hardly any money."""


@dataclass(frozen=True, slots=True)
class DemoFleet:
    """A fleet with its history, and what accounts.svc.plus knows about it.

    `known_users` are those of the first half, with the proxy uuids that they had; one more
    registers at `middle`.
    """

    fleet: Fleet
    endpoints: Mapping[str, Endpoint]
    middle: datetime
    end: datetime
    known_users: Sequence[User]
    funds: Mapping[str, Funds]
    default_funds: Funds
    description: str = DESCRIPTION


def build_fleet(start: datetime, end: datetime) -> DemoFleet:
    """Return the fleet with its history from `start` up to `end`."""
    fleet = Fleet(seed=7, start=start)
    jp, us = fleet.add_node("jp-1"), fleet.add_node("us-1")
    de = fleet.add_node("de-1", env="edge")
    users = [fleet.add_user() for _ in range(USERS - 1)]
    two_inbounds, idle, poor, renewed = users[0], users[1], users[2], users[3]

    for user in users:
        jp.add_stream(user.uuid, "xhttp-premium", idle=user is idle)
        us.add_stream(user.uuid, "xhttp", idle=user is idle)
        de.add_stream(user.proxy_uuid, idle=user is idle)
    jp.add_stream(two_inbounds.uuid, "grpc")
    unresolved = fleet.new_uuid()
    de.add_stream(unresolved)

    half_time = start + (end - start) // 2
    us.hide(start + 8 * MINUTE, start + 14 * MINUTE)
    restart = start + 20 * MINUTE + timedelta(seconds=40)
    jp.run(restart, poll_seconds=15)
    jp.restart_xray(restart)
    jp.run(end, poll_seconds=15)
    us.run(end)

    de.run(half_time)
    known_users = [replace(user) for user in users]
    for stream in de.streams:
        stream.idle = stream.idle or stream.name.sample_uuid == renewed.proxy_uuid
    de.add_stream(fleet.renew_proxy(renewed))
    de.run(end)
    fleet.add_user(proxy_uuid=unresolved)

    funds = {user.uuid: Funds(Decimal(5), 200 * MIB) for user in users}
    funds[poor.uuid] = Funds(Decimal("0.05"), 0)
    return DemoFleet(
        fleet=fleet,
        endpoints={source_id: Endpoint(max_page=5) for source_id in fleet.nodes},
        middle=half_time,
        end=end,
        known_users=known_users,
        funds=funds,
        default_funds=Funds(),
    )
