"""One round: a job meets a fault, its books are looked at, and it is run again until all is done.

Whatever a fault leaves must be right as it stands, and running again must be all it takes. A run
that says it is done must have done everything.
"""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING
from unittest import mock

import psycopg

from billing_cli.database import connection as store_connection
from billing_cli.database.connection import FATE_UNKNOWN
from billing_cli.errors import BillingError
from billing_cli.simulator.invariants import read_watermarks
from tests.integration.database.stage import eventually
from tests.support.relay import relayed
from tests.torture import scenes
from tests.torture.verdict import look_between, look_finally

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from contextlib import AbstractContextManager
    from typing import LiteralString

    from tests.support.relay import Severance, Side
    from tests.torture.arena import Place
    from tests.torture.scenes import LimitedWorld, Scene
    from tests.torture.verdict import Verdict

RERUNS = 5
MOST_CHANCES = 20
DONE = {"ok", "partial"}
# How a run says that an account's usage is left to the next one.
LEFT_PENDING = "is locked by another session"

# Backends of jobs, alive or not yet aware that their client is not.
COUNT_RUNNING = """
SELECT count(*) FROM pg_stat_activity
 WHERE datname = current_database() AND application_name LIKE 'billing%'
"""


def face(
    scene: Scene,
    world: LimitedWorld,
    place: Place,
    fault: Callable[[Side, int], Severance],
    verdict: Verdict,
    around: AbstractContextManager[None] | None = None,
) -> None:
    """Run the scene's job over a line whose messages the fault judges; then see to the books.

    What happens `around` the job begins before it, and ends before its books are looked at.
    """
    direct = world.database_url
    with around or nullcontext(), relayed(direct) as relay:
        relay.judge_message = fault
        world.database_url = relay.url
        try:
            done = ends_well(lambda: scene.work(world), verdict)
        finally:
            world.database_url = direct
    see_to_the_books(scene, world, place, verdict, done=done)


def see_to_the_books(
    scene: Scene, world: LimitedWorld, place: Place, verdict: Verdict, *, done: bool
) -> None:
    """Look at what a fault has left, run the job again unless it is done, and look at the end."""
    eventually(lambda: not count(place, COUNT_RUNNING))
    with psycopg.connect(place.database_url, autocommit=True) as connection:
        world.connection = connection
        is_clear = verdict.failure and FATE_UNKNOWN not in verdict.failure
        if is_clear and scene.takes_one_step and read_watermarks(connection) != world.watermarks:
            verdict.problems.append("a run that failed has stored something")
        look_between(world, verdict, blurred=scene.blurred)
        if not done and not ends_well_at_last(lambda: scene.work(world), verdict):
            verdict.problems.append(f"{RERUNS} further runs did not end well")
        look_finally(world, verdict, scenes.held_bytes(world))


def chances(seed: int, rounds: int) -> Iterable[int]:
    """Return the seeds to try, of which some may lead to no round that counts."""
    return range(seed, seed + MOST_CHANCES * rounds)


def ends_well_at_last(work: Callable[[], object], verdict: Verdict) -> bool:
    """Tell whether it ends well when it is done again, a limited number of times."""
    return any(ends_well(work, verdict) for _ in range(RERUNS))


def ends_well(work: Callable[[], object], verdict: Verdict) -> bool:
    """Tell whether a job does its work. Anything but an error of its own kind is a bug.

    The failure that is noted is that of this run, not of one before it.
    """
    verdict.failure = ""
    try:
        result = work()
    except BillingError as error:
        verdict.failure = str(error)
        return False
    except Exception as error:  # noqa: BLE001 - the books are to be looked at all the more
        verdict.problems.append(f"unexpected {type(error).__name__}: {error}")
        return False
    # A source that somebody else holds is left to them: here, a backend that is about to end.
    parts = [result, *getattr(result, "sources", ())]
    notes = [note for part in parts for note in getattr(part, "notes", ())]
    waits = any(LEFT_PENDING in note for note in notes)
    return not waits and all(getattr(part, "status", "ok") in DONE for part in parts)


def count(place: Place, query: LiteralString) -> int:
    """Return the one number that a query finds."""
    with psycopg.connect(place.database_url) as connection:
        (number,) = connection.execute(query).fetchone() or (0,)
        return int(number)


@contextmanager
def impatient() -> Iterator[None]:
    """Let jobs of this process try again at once."""
    with (
        mock.patch.object(store_connection, "RETRY_PAUSE_SECONDS", 0),
        mock.patch.object(store_connection, "COMMIT_CHECK_PAUSE_SECONDS", 0.02),
    ):
        yield
