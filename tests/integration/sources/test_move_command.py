"""`billing sources move` as a process: what it prints, and how it ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest

from billing_cli.database.sources import try_lock_sources
from tests.cli.command import MINUTES, Site
from tests.cli.conftest import history_start
from tests.integration.jobs.world import serving_world

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def site(database_url: str, job_url: str) -> Iterator[Site]:
    """Return a fleet of two nodes that was collected just now, by the role of the jobs."""
    with serving_world(database_url, job_url, history_start()) as world:
        made = Site(world)
        made.has_two_nodes()
        assert made.billing("collect").code == 0
        yield made


def test_a_move_prints_what_goes_on_where(site: Site) -> None:
    """Text for people, one JSON object for programs; the role of the jobs may do it."""
    site.world.overrides["jp-1"] = {"source_id": "tokyo-1"}
    shown = site.billing("sources", "move", "jp-1", "tokyo-1", "--dry-run")
    assert shown.code == 0
    assert "(dry run: nothing is stored) - source tokyo-1 goes on after" in shown.stdout
    moved = site.billing("sources", "move", "jp-1", "tokyo-1", "--json")
    assert (moved.code, moved.result["job"], moved.result["status"]) == (0, "sources-move", "ok")
    assert moved.result["moved"]["new_source_id"] == "tokyo-1"
    assert moved.result["moved"]["streams"] == 0
    assert site.billing("collect").code == 0
    site.world.assert_all_is_billed()


def test_a_renamed_node_goes_on(site: Site) -> None:
    """The command of the error message, with the id that the exporter has now."""
    node = site.world.fleet.nodes["jp-1"]
    node.rename("tokyo-1")
    site.world.flow_until(MINUTES + 1)
    site.world.overrides["jp-1"] = {"expected_node_id": None, "expected_env": None}
    moved = site.billing("sources", "move", "jp-1", "prod:tokyo-1", "--same-counters")
    assert moved.code == 0
    assert "2 counters of node prod:jp-1.svc.plus continue under the new id" in moved.stdout
    assert site.billing("collect").code == 0


def test_each_refusal_has_its_exit_code(site: Site) -> None:
    """2 for what can't be meant, 1 for a history of its own, 75 for a source that is held."""
    assert site.billing("sources", "move", "nothing", "jp-1").code == 2
    assert site.billing("sources", "move", "jp-1", "nothing").code == 2
    site.world.overrides["us-1"] = {"expected_node_id": None, "expected_env": None}
    failed = site.billing("sources", "move", "jp-1", "us-1", "--json")
    assert failed.code == 1
    assert "has been collected already" in failed.result["error"]["message"]
    with psycopg.connect(site.world.database_url) as other:
        try_lock_sources(other, ["jp-1"])
        busy = site.billing("sources", "move", "jp-1", "prod:b", "--same-counters", "--json")
    assert (busy.code, busy.result["status"]) == (75, "busy")
