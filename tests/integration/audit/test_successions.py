"""Chains over successions: whatever is changed about one, an audit finds it."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from functools import cache
from typing import TYPE_CHECKING

import psycopg
import pytest

from billing_cli.features.audit.job import audit
from billing_cli.simulator.scenarios.library import BY_NAME
from billing_cli.simulator.scenarios.playing import play
from billing_cli.simulator.server import serve
from tests.integration.jobs.world import World

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from billing_cli.features.audit.findings import AuditReport
    from billing_cli.simulator.scenarios.playing import Played
    from tests.support.postgres import Databases

# What is changed, and what an audit calls it. A merge has two streams that end for each account
# with two inbounds, a split has two that continue.
DAMAGES = {
    "a total handed over changed": (
        "merge",
        (
            "UPDATE billing.succession_streams SET uplink_total = uplink_total + 1"
            " WHERE ctid = (SELECT min(ctid) FROM billing.succession_streams WHERE side = 'ended')"
        ),
        {"succession_unbalanced": 1, "checkpoint_differs": 1},
    ),
    "a total taken over changed": (
        "merge",
        (
            "UPDATE billing.succession_streams SET uplink_total = uplink_total + 1"
            " WHERE ctid = (SELECT min(ctid) FROM billing.succession_streams"
            " WHERE side = 'continued')"
        ),
        {"succession_unbalanced": 1, "chain_broken": 1},
    ),
    "a byte moved between streams that end": (
        "merge",
        (
            "UPDATE billing.succession_streams AS part SET uplink_total = uplink_total"
            " + CASE stream_id WHEN (SELECT min(stream_id) FROM billing.succession_streams AS one"
            "   WHERE side = 'ended' AND one.succession_id = part.succession_id) THEN 1 ELSE -1 END"
            " WHERE side = 'ended' AND succession_id = (SELECT succession_id"
            "   FROM billing.succession_streams GROUP BY 1 HAVING count(*) > 2 LIMIT 1)"
        ),
        {"checkpoint_differs": 2},
    ),
    "a byte moved between streams that continue": (
        "split",
        (
            "UPDATE billing.succession_streams AS part SET uplink_total = uplink_total"
            " + CASE stream_id WHEN (SELECT min(stream_id) FROM billing.succession_streams AS one"
            "   WHERE side = 'continued' AND one.succession_id = part.succession_id)"
            " THEN 1 ELSE -1 END"
            " WHERE side = 'continued' AND succession_id = (SELECT succession_id"
            "   FROM billing.succession_streams GROUP BY 1 HAVING count(*) > 2 LIMIT 1)"
        ),
        {"chain_broken": 2},
    ),
    "a row of a succession deleted": (
        "merge",
        (
            "DELETE FROM billing.succession_streams"
            " WHERE ctid = (SELECT min(ctid) FROM billing.succession_streams"
            " WHERE side = 'continued')"
        ),
        {"succession_unbalanced": 1, "chain_broken": 1},
    ),
    "a succession deleted": (
        "rename",
        (
            "WITH gone AS (DELETE FROM billing.succession_streams WHERE succession_id ="
            " (SELECT min(succession_id) FROM billing.successions) RETURNING succession_id)"
            " SELECT FROM gone"
        ),
        {"succession_unbalanced": 1, "chain_broken": 1, "checkpoint_differs": 1},
    ),
    "a succession's time changed": (
        "merge",
        (
            "UPDATE billing.successions SET at = at + interval '2 minutes' WHERE succession_id ="
            " (SELECT min(succession_id) FROM billing.successions)"
        ),
        {"chain_broken": 2},
    ),
    "a revocation's total changed": (
        "clock_ahead_two_missed_polls",
        (
            "UPDATE billing.succession_streams SET uplink_total = uplink_total + 1"
            " WHERE (succession_id, stream_id) = (SELECT succession_id, min(stream_id)"
            "   FROM billing.succession_streams JOIN billing.successions USING (succession_id)"
            "  WHERE kind = 'restart_revoked' GROUP BY 1 ORDER BY 1 LIMIT 1)"
        ),
        {"chain_broken": 1},
    ),
}


class Scene:
    """A scenario that is billed minute by minute."""

    def __init__(self, played: Played, world: World) -> None:
        self.played = played
        self.world = world

    def audit(self, account: str | None = None) -> AuditReport:
        """Audit the database as it is at the end."""
        return audit(self.world.context(self.played.moments[-1]), account=account)


@pytest.fixture(scope="module")
def billed(databases: Databases) -> Iterator[Callable[[str], tuple[Played, str]]]:
    """Return what bills a scenario once for all tests; it gives the scenario and its database."""
    with ExitStack() as stack:

        @cache
        def bill(name: str) -> tuple[Played, str]:
            played = play(BY_NAME[name])
            url = stack.enter_context(databases.database(migrated=True))
            with opened(played, url, databases) as world:
                world.save_users()
                for moment in played.moments:
                    world.run_unchecked(moment)
            return played, url

        yield bill


@pytest.fixture
def scene(
    request: pytest.FixtureRequest,
    billed: Callable[[str], tuple[Played, str]],
    databases: Databases,
) -> Iterator[Scene]:
    """Return a billed scenario, named by the test's parameter, in a copy of its database."""
    played, url = billed(request.param)
    with databases.copy_of(url) as copy, opened(played, copy, databases) as world:
        yield Scene(played, world)


@contextmanager
def opened(played: Played, url: str, databases: Databases) -> Iterator[World]:
    """Serve a scenario's fleet as long as the block lasts."""
    with serve(played.fleet) as running, psycopg.connect(url, autocommit=True) as connection:
        yield World(databases.job_url(url), running, connection)


def violations(report: AuditReport) -> dict[str, int]:
    """Return how many violations there are of each kind."""
    found: dict[str, int] = {}
    for finding in report.findings:
        if finding.is_violation:
            found[finding.kind] = found.get(finding.kind, 0) + 1
    return found


@pytest.mark.parametrize(
    ("scene", "name"), [(one[0], name) for name, one in DAMAGES.items()], indirect=["scene"]
)
def test_a_changed_succession_is_found(scene: Scene, name: str) -> None:
    """Whether a row is changed, gone, or only a byte is moved from one stream to another."""
    assert violations(scene.audit()) == {}
    _, statement, expected = DAMAGES[name]
    with scene.world.connection.transaction():
        scene.world.connection.execute("SET LOCAL session_replication_role = replica")
        assert scene.world.connection.execute(statement.encode()).rowcount > 0

    assert violations(scene.audit()) == expected


@pytest.mark.parametrize("scene", ["merge", "proxy_to_account"], indirect=True)
def test_an_account_with_successions_is_audited_alone(scene: Scene) -> None:
    """Its chains connect over all names that its counters had."""
    for user in scene.played.fleet.users:
        report = scene.audit(user.uuid)
        assert violations(report) == {}
        assert report.totals.recorded_bytes > 0 or report.rows["usage_records"] == 0
