"""`billing held` as a process: what it prints, and how it ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest

from billing_cli.cli.printing import text_of
from billing_cli.cli.units import human_rate
from billing_cli.core.model import StreamName, Totals, UsageRecord
from billing_cli.database.sources import try_lock_sources
from billing_cli.features.held.result import HeldDelta, HeldList, HeldResult
from billing_cli.features.held.text import held_list_parts, held_result_parts
from tests.support.story import MINUTE, START

if TYPE_CHECKING:
    from tests.support.story import Story

JUMP = 1_000_000

HELD = HeldDelta(
    7,
    1,
    "jp-1",
    "prod:jp-1.svc.plus",
    None,
    UsageRecord(
        StreamName("xhttp", "11111111-1111-1111-1111-111111111111"),
        START,
        0,
        START,
        START + MINUTE,
        Totals(10, 20),
        Totals(10, 20 + 15 * 2**30),
    ),
    START + MINUTE,
)


@pytest.fixture
def held_id(story: Story) -> str:
    """Return the id of a delta that is held."""
    user = story.add_user()
    stream = story.add_node("jp-1").add_stream(user.uuid, "xhttp")
    story.minute()
    story.minute((stream, JUMP, 0))
    story.collect()
    return str(story.rows("SELECT held_id FROM billing.held_deltas")[0][0])


def test_a_delta_is_listed_released_and_then_gone_from_the_list(story: Story, held_id: str) -> None:
    """Each command prints one JSON object and ends with 0."""
    listed = story.billing("held", "list", "--source", "jp-1", "--json")
    (one,) = listed.json["held"]
    assert (listed.exit_code, one["held_id"], one["total_bytes"]) == (0, int(held_id), JUMP)
    assert (one["source_id"], one["node_id"]) == ("jp-1", "prod:jp-1.svc.plus")
    assert (one["uplink_start"], one["uplink_end"], one["bits_per_second"]) == (0, JUMP, 133333)
    by_kind = {
        kind: len(story.billing("held", "list", "--kind", kind, "--json").json["held"])
        for kind in ("account_rate", "duplicate")
    }
    assert by_kind == {"account_rate": 1, "duplicate": 0}

    released = story.billing("held", "release", held_id, "--reason", " it  is\nfine ", "--json")
    assert (released.exit_code, released.json["job"]) == (0, "held-release")
    assert (released.json["charged_bytes"], released.json["amount"]) == (JUMP, "1000.000000000")
    assert [decided["state"] for decided in released.json["held"]] == ["released"]

    assert story.billing("held", "list", "--json").json["held"] == []
    (decided,) = story.billing("held", "list", "--all", "--json").json["held"]
    assert (decided["state"], decided["reason"]) == ("released", "it is fine")


def test_exit_codes_tell_wrong_usage_from_refusal(story: Story, held_id: str) -> None:
    """2 for what can't be asked, 75 while another run is at it, 1 for what was decided already."""
    assert story.billing("held", "release", "4711", "--reason", "x").exit_code == 2
    assert story.billing("held", "release", held_id, "--reason", " ").exit_code == 2
    assert story.billing("held", "list", "--source", "mars-1").exit_code == 2
    with psycopg.connect(story.database_url) as other, other.transaction():
        try_lock_sources(other, ["jp-1"])
        busy = story.billing("held", "release", held_id, "--reason", "x", "--json")
    assert (busy.exit_code, busy.json["status"]) == (75, "busy")
    assert story.billing("held", "reject", held_id, "--reason", "a bug").exit_code == 0
    again = story.billing("held", "release", held_id, "--reason", "x", "--json")
    assert (again.exit_code, again.json["status"]) == (1, "error")
    assert "rejected already" in again.json["error"]["message"]


def test_the_list_shows_a_delta_in_a_line() -> None:
    """Bytes and rate as a person reads them."""
    *units, _, header, line = text_of(held_list_parts(HeldList((HELD,)))).splitlines()
    assert header.split()[:5] == ["ID", "STATE", "REASON", "SOURCE", "NODE"]
    assert units[1].split()[-5:] == ["-", "1", "15.0", "GiB", "7"]
    assert "15.0 GiB  2.1 Gbit/s" in line
    assert text_of(held_list_parts(HeldList())) == "no held deltas"


def test_a_decision_is_told_with_its_costs() -> None:
    """A dry run says so, and a run that found the source busy says that instead."""
    result = HeldResult("held-release", "", "ok", START, START, dry_run=True, held=(HELD,))
    assert text_of(held_result_parts(result)).startswith(
        "held-release: ok (dry run: nothing is stored) - 1 decided, 0 B billed"
    )
    busy = HeldResult("held-release", "", "busy", START, START, error="another run is at it")
    assert text_of(held_result_parts(busy)) == "held-release: busy - another run is at it"


@pytest.mark.parametrize(
    ("bits_per_second", "text"),
    [
        (0, "0 bit/s"),
        (999, "999 bit/s"),
        (1_500, "1.5 kbit/s"),
        (2_500_000_000, "2.5 Gbit/s"),
        (10**15, "1000.0 Tbit/s"),
    ],
)
def test_rates_have_decimal_units(bits_per_second: int, text: str) -> None:
    """As line rates are given."""
    assert human_rate(bits_per_second) == text
