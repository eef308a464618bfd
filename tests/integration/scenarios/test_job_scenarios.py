from __future__ import annotations

import psycopg
import pytest

from billing_cli.features.audit.job import audit
from billing_cli.jobs.reconcile import reconcile
from billing_cli.simulator.invariants import compare_with_expected, violations
from billing_cli.simulator.scenarios.library import BY_NAME
from billing_cli.simulator.scenarios.playing import play
from billing_cli.simulator.server import serve
from tests.integration.jobs.world import World
from tests.integration.scenarios.failing import NAMES

# Runs begin and end elsewhere in each scenario; the core is tried with every cutting.
CUTTINGS = {name: f"every 7 minutes from {number % 7}" for number, name in enumerate(BY_NAME)}


@pytest.mark.parametrize("name", NAMES)
def test_collect_bills_what_flowed(name: str, database_url: str, job_url: str) -> None:
    """From the exporter to the buckets: each account's bytes on the node are those that flowed.

    An audit finds that all chains connect.
    """
    played = play(BY_NAME[name])
    moments = played.cuttings()[CUTTINGS[name]]
    with (
        serve(played.fleet) as running,
        psycopg.connect(database_url, autocommit=True) as connection,
    ):
        world = World(job_url, running, connection)
        world.save_users()
        for moment in moments:
            world.run_unchecked(moment)
        expected = played.expected(moments)
        assert compare_with_expected(connection, played.node.identity.stored, expected) == []
        report = audit(world.context(moments[-1]))
        assert [finding for finding in report.findings if finding.is_violation] == []
        assert violations(connection, world.opening()) == []


@pytest.mark.parametrize("name", ["clock_back_live", "merge", "restart_active", "counter_reset"])
def test_reconcile_after_collect_changes_nothing(
    name: str, database_url: str, job_url: str
) -> None:
    """History that is read again, with snapshots of two clocks in it, charges nothing twice."""
    played = play(BY_NAME[name])
    moments = played.cuttings()[CUTTINGS[name]]
    with (
        serve(played.fleet) as running,
        psycopg.connect(database_url, autocommit=True) as connection,
    ):
        world = World(job_url, running, connection)
        world.save_users()
        for moment in moments:
            world.run_unchecked(moment)
        for _ in range(2):
            world.run_unchecked(moments[-1], reconcile, since=moments[0], until=moments[-1])
            expected = played.expected(moments)
            assert compare_with_expected(connection, played.node.identity.stored, expected) == []
        assert violations(connection, world.opening()) == []
