"""What one node can cost: the memory of a run, and the rows that it leaves in the database."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from billing_cli.core.model import DeltaPolicy
from billing_cli.core.stream_limits import MAX_SUCCESSIONS_PER_HOUR, NewStreams, excess
from billing_cli.exporter.limits import DEFAULT_LIMITS
from billing_cli.jobs.collect import collect
from tests.integration.attacks.hostile import MINUTE, START, Attack, only

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.integration.attacks.hostile import Sample

MOST_MEGABYTES = 350
MICROSECOND = timedelta.resolution
# A run writes no longer row than this into the run history, whatever an exporter sent.
MOST_RESULT_BYTES = 20_000

# Memory is that of the process itself.
BILLING = """
import atexit, sys
from billing_cli.__main__ import main

@atexit.register
def report():
    with open("/proc/self/status") as status:
        peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM:"))
    print(peak / 1024, file=sys.stderr)

main()
"""


def test_the_most_samples_that_are_decoded_fit_into_memory(attack: Attack) -> None:
    """Half of them are no uuids, with long texts; the others are new streams, which are refused."""
    now = datetime.now(UTC).replace(second=0, microsecond=0)
    half = DEFAULT_LIMITS.snapshot_samples // 2
    samples: list[Sample] = [(f"{number:0250d}", "t", 1) for number in range(half)]
    samples += [(str(uuid.UUID(int=number)), "t", 64 * 10**12) for number in range(half)]
    node = attack.node()
    node.snapshots = {now - 5 * MINUTE: [], now - 4 * MINUTE: samples}
    result, peak_megabytes = billing(attack, "collect", "--json")
    (source,) = result["sources"]
    assert source["error_code"] == "too_many_streams"
    assert peak_megabytes < MOST_MEGABYTES


def test_restarts_a_microsecond_apart_leave_a_few_rows(attack: Attack) -> None:
    """5,000 snapshots in 5 ms, each with lower or higher counters than the one before."""
    users = attack.users(4)
    publish(attack, 5_000, [[(user, "t", 10 + place * 1000) for user in users] for place in (0, 1)])
    attack.run(START + MINUTE, collect)
    most = DEFAULT_LIMITS.minute_snapshots
    assert attack.count("billing.usage_records") <= most * len(users)
    assert attack.count("billing.gaps") <= most


def test_a_tag_that_is_renamed_with_each_snapshot_leaves_a_bounded_number_of_rows(
    attack: Attack,
) -> None:
    """Successions are no new streams, but there are not more of them than of real counters."""
    users = attack.users(4)
    samples = [[(user, f"t{number}", 10 + number) for user in users] for number in range(500)]
    publish(attack, 500, samples)
    attack.run(START + MINUTE, collect)
    assert attack.count("billing.streams") <= DEFAULT_LIMITS.minute_snapshots * len(users)
    renamed = NewStreams(START, False, MAX_SUCCESSIONS_PER_HOUR + 1, is_succession=True)
    reason = excess(DeltaPolicy(), [renamed], {})
    assert reason is not None
    assert "renamed streams within an hour" in reason


def test_samples_without_uuid_are_counted_and_not_listed(attack: Attack) -> None:
    """Else each run would leave megabytes in the run history."""
    node = attack.node()
    for minute in range(3):
        node.snapshots[START + minute * MINUTE] = [(f"{n:0200d}", "t", 1) for n in range(5000)]
    source = only(attack.run(START + 2 * MINUTE))
    assert (source.status, source.rejected_samples) == ("partial", 15_000)
    assert "more samples that can't be used" in source.notes[-1]
    (row,) = attack.connection.execute("SELECT max(length(result::text)) FROM billing.runs")
    assert row[0] < MOST_RESULT_BYTES


def test_the_longest_names_fit_into_every_index(attack: Attack) -> None:
    """Characters of three bytes that no compression shortens; longer ones are refused at once."""
    user, other = attack.users(2)
    node = attack.node(node_id=name(170, 1))
    for minute in range(4):
        node.snapshots[START + minute * MINUTE] = [(user, name(170, 2), minute * 1000)]
    assert only(attack.run(START + 3 * MINUTE)).error is None
    assert attack.charged()[0] == 3000
    longer = attack.node("us-1")
    longer.snapshots[START] = [(other, name(171, 3), 0)]
    error = {source.source_id: source.error for source in attack.run(START + 3 * MINUTE).sources}[
        "us-1"
    ]
    assert error == "snapshot 1: inbound_tag has 513 bytes"


@pytest.mark.parametrize("year", [1, 1000, 2000])
def test_a_stamp_of_long_ago_affects_its_source_alone(attack: Attack, year: int) -> None:
    """An exporter with only the latest snapshot begins there, and jumps to the present."""
    honest, (user, other) = attack.node("us-1"), attack.users(2)
    node = attack.node()
    node.limits["mode"] = "latest"
    for minute in range(3):
        honest.snapshots[START + minute * MINUTE] = [(user, "tcp", minute * 10)]
    for minute, at in enumerate((datetime(year, 1, 1, tzinfo=UTC), START + MINUTE)):
        node.snapshots[at] = [(other, f"t{minute}", 10), (other, "tcp", minute)]
        result = attack.run(START + (minute + 1) * MINUTE, collect)
        assert {source.source_id: source.status for source in result.sources}["us-1"] == "ok"
    assert attack.charged()[0] == 20 + 1


def publish(attack: Attack, count: int, samples: Sequence[Sequence[Sample]]) -> None:
    """Publish a baseline, and then snapshots a microsecond apart; the samples take turns."""
    node = attack.node()
    node.snapshots[START] = []
    for number in range(count):
        node.snapshots[START + MINUTE + number * MICROSECOND] = samples[number % len(samples)]


def name(length: int, seed: int) -> str:
    """Return a name of different characters of three bytes each."""
    return "".join(chr(0x4E00 + number * 7919 * seed % 20_000) for number in range(length))


def billing(attack: Attack, *arguments: str) -> tuple[Any, float]:
    """Run `billing`; return its result object and its peak memory in MB."""
    sources = [
        {"source_id": node.source_id, "base_url": node.url} for node in attack.nodes.values()
    ]
    done = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-c", BILLING, *arguments],
        env={
            **{key: value for key, value in os.environ.items() if "BILLING" not in key},
            "DATABASE_URL": attack.job_url,
            "EXPORTER_SOURCES_JSON": json.dumps(sources),
            "PRICE_PER_BYTE": "1e-9",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    return json.loads(done.stdout), float(done.stderr.splitlines()[-1])
