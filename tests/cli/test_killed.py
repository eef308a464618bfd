"""Writers that are killed at random moments, by a signal that nobody can catch."""

from __future__ import annotations

import os
import random
import sys
import time
from typing import TYPE_CHECKING, Any

from billing_cli.__main__ import main
from tests.cli.command import MINUTES
from tests.support.forks import FORKS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from multiprocessing.process import BaseProcess

    from tests.cli.command import Site

KILLS = 12
AT_ONCE = 2
HISTORY_MINUTES = 60
KILLED = -9


def test_writers_killed_at_random_moments_lose_and_double_nothing(site: Site) -> None:
    """A dozen of them, two at a time; what is left is done by one more, and every byte is there."""
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")  # noqa: T201 - shown where the test fails
    rng = random.Random(seed)  # noqa: S311 - no secret
    world = site.world
    world.fleet.start = world.at(MINUTES - HISTORY_MINUTES)
    users = world.add_users(3)
    for source_id in ("jp-1", "us-1"):
        world.add_node(source_id, users)
    world.flow_until(HISTORY_MINUTES)
    # Each run moves hardly more than a minute, so that there is always something to be done.
    site.extra |= {"BILLING_STEP_MAX_SAMPLES": "6", "BILLING_PAGE_LIMIT": "3"}

    most_seconds = life_of_a_writer(site)
    codes: list[int | None] = []
    stored = [(0,)]
    while codes.count(KILLED) < KILLS:
        codes += kill_some(site, rng, most_seconds)
        before, stored = stored, world.rows("SELECT count(*) FROM billing.runs")
        # However busy the machine is: some come to their COMMIT, and some do not.
        most_seconds *= 1.2 if stored == before else 0.9

    # Where the machine stalls, an exporter's answer may come too late: partial, or an outage.
    assert set(codes) <= {KILLED, 0, 3, 69, 75}
    world.check()
    assert world.billed_bytes()[0] > 0
    assert site.billing("catch-up").code == 0
    world.assert_all_is_billed()


def life_of_a_writer(site: Site) -> float:
    """Return the seconds from a writer's first request to its end: here and now, undisturbed."""
    (writer,), started_at = start_writers(site, 1)
    assert code_of(writer) == 0
    return time.monotonic() - started_at


def kill_some(site: Site, rng: random.Random, most_seconds: float) -> list[int | None]:
    """Start writers side by side, kill each at a moment of its own, and return how they ended."""
    writers, started_at = start_writers(site, AT_ONCE)
    for life, writer in sorted(
        ((rng.uniform(0, most_seconds), writer) for writer in writers), key=lambda one: one[0]
    ):
        time.sleep(max(0.0, started_at + life - time.monotonic()))
        writer.kill()
    return [code_of(writer) for writer in writers]


def start_writers(site: Site, count: int) -> tuple[list[BaseProcess], float]:
    """Start writers; return them, and when the first of them came to its first request."""
    requests = [site.world.running[source_id].requests for source_id in site.world.fleet.nodes]
    for request in requests:
        request.clear()
    writers: list[Any] = [
        FORKS.Process(target=collect, args=(site.environment,)) for _ in range(count)
    ]
    for writer in writers:
        writer.start()
    while not any(requests) and any(writer.is_alive() for writer in writers):
        time.sleep(0.001)
    return writers, time.monotonic()


def code_of(writer: BaseProcess) -> int | None:
    """Wait for a writer, and return how it ended."""
    writer.join()
    code = writer.exitcode
    writer.close()
    return code


def collect(environment: Mapping[str, str]) -> None:
    """Be `billing collect` in this environment, silently."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for output in (sys.stdout, sys.stderr):
        os.dup2(nowhere, output.fileno())
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["billing", "collect"]
    main()
