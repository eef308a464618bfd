"""How often a run waits for the server, which may be far away while rows are locked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.jobs.world import serving_world
from tests.support.relay import relayed

if TYPE_CHECKING:
    from tests.support.postgres import Databases
    from tests.support.relay import Side

MOST_WITH_WRITES = 16
MOST_WITH_NOTHING_NEW = 8


def test_round_trips_are_few_and_do_not_grow_with_the_run(databases: Databases) -> None:
    """Connection, session settings, BEGIN and COMMIT included."""
    with (
        databases.database(migrated=True) as url,
        relayed(databases.job_url(url)) as relay,
        serving_world(url, relay.url) as world,
    ):
        world.add_node("jp-1", world.add_users(20))
        world.flow_until(8)
        world.run_unchecked(world.at(2.7))
        world.run_unchecked(world.at(3.7))
        turns = TurnCounter()
        relay.judge_message = turns.note
        assert world.run_unchecked(world.at(4.7)).written_minutes > 0
        with_writes = turns.take()
        assert world.run_unchecked(world.at(4.7)).written_minutes == 0
        with_nothing_new = turns.take()
    assert with_writes <= MOST_WITH_WRITES
    assert with_nothing_new <= MOST_WITH_NOTHING_NEW


class TurnCounter:
    """Counts how often the server speaks after the client did: each is a round trip."""

    def __init__(self) -> None:
        self.count = 0
        self._last: Side = "server"

    def note(self, side: Side, _number: int) -> None:
        """Look at a message that passes."""
        if side == "server" and self._last == "client":
            self.count += 1
        self._last = side

    def take(self) -> int:
        """Return the count so far, and begin anew."""
        count, self.count = self.count, 0
        return count
