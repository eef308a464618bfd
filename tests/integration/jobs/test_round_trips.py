"""How often a run waits for the server, which may be far away while rows are locked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.integration.jobs.world import serving_world
from tests.support.relay import relayed

if TYPE_CHECKING:
    from tests.support.postgres import Databases
    from tests.support.relay import Relay

# The startup message comes on top where TLS or a password is asked for: 1 and 2 more.
MOST_WITH_WRITES = 14
MOST_WITH_NOTHING_NEW = 6


@pytest.mark.parametrize("named_by", ["uuid", "proxy_uuid"])
def test_round_trips_are_few_and_do_not_grow_with_the_run(
    databases: Databases, named_by: str
) -> None:
    """Connection, settings, BEGIN and COMMIT included, also where accounts are charged first."""
    with (
        databases.database(migrated=True) as url,
        relayed(databases.job_url(url)) as relay,
        serving_world(url, relay.url) as world,
    ):
        node = world.fleet.add_node("jp-1")
        for user in world.add_users(400):
            node.add_stream(getattr(user, named_by))
        world.flow_until(8)
        world.run_unchecked(world.at(2.7))
        found = []
        for minute in (3.7, 4.7):
            relay.kinds.clear()
            assert world.run_unchecked(world.at(minute)).written_minutes >= 200
            found.append(round_trips(relay))
        assert world.run_unchecked(world.at(4.7)).written_minutes == 0
        with_nothing_new = round_trips(relay)
    assert max(found) <= MOST_WITH_WRITES
    assert with_nothing_new <= MOST_WITH_NOTHING_NEW


def round_trips(relay: Relay) -> int:
    """Return after how many messages so far the client has waited, and begin anew.

    It waits after its startup message, a query of the simple protocol, a Sync and the end of a
    COPY; what it sends in a pipeline until the Sync is one round trip.
    """
    waits = [kind for kind in relay.kinds if kind in {"startup", "Q", "S", "c"}]
    relay.kinds.clear()
    return len(waits)
