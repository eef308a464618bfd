"""Memory, measured in a process of its own: what it needs at most, and what it keeps."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.unit.exporter.answers import encoded, minutes, page
from tests.unit.exporter.hostility import script_that
from tests.unit.exporter.servers import answering, serving

if TYPE_CHECKING:
    from tests.unit.exporter.servers import Script

LIMIT_MEGABYTES = 350
# Leaves room for what a run does with the snapshots.
HONEST_MEGABYTES = 220

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="the peak is read from Linux's /proc"
)

FETCH_ALL = """
import gc, json, sys
from datetime import datetime, timezone
from billing_cli.exporter.api import FetchRequest
from billing_cli.exporter.fleet import fetch_all
from billing_cli.config.source import Source

gc.disable()  # As the command does: nothing may depend on cycles being found.
now = datetime(2026, 4, 8, 12, 30, tzinfo=timezone.utc)
since = datetime(2026, 4, 8, 12, 0, tzinfo=timezone.utc)
requests = [
    FetchRequest(Source(str(number), url, timeout_seconds=60.0), since, now, 500_000, 60)
    for number, url in enumerate(sys.argv[1:])
]
outcomes = {
    source_id: str(outcome) if isinstance(outcome, Exception) else len(outcome.snapshots)
    for source_id, outcome in fetch_all(
        requests, now=now, concurrency=16, deadline_seconds=120.0, default_token=None
    )
}
# Not ru_maxrss, which begins with what the parent process had when it forked.
with open("/proc/self/status") as status:
    peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM:"))

print(json.dumps({"outcomes": outcomes, "peak_megabytes": peak / 1024}))
"""


def test_a_page_of_two_snapshots_of_a_hundred_thousand_samples_fits() -> None:
    """What the exporter of a node of that size sends, indented and with wide characters."""
    shots = minutes(2, size=100_000)
    shots[0]["samples"][0]["email"] = "\U0001f600@example.com"
    body = json.dumps(page(shots), ensure_ascii=False, indent=1).encode()
    assert len(body) > 40_000_000
    outcomes, peak_megabytes = measured([answering(body)])
    assert outcomes == [2]
    assert peak_megabytes < HONEST_MEGABYTES


def test_answers_without_end_from_all_sides_at_once_take_little_memory() -> None:
    """Bombs, endless bodies and bodies of tiny values, with the limits as they are shipped."""
    tiny = b'{"snapshots":[' + b"{}," * 20_000_000 + b"{}]}"
    scripts: list[Script] = [
        script_that("sends a gzip bomb of ten gigabytes"),
        script_that("sends chunks for ever"),
        script_that("announces ten gigabytes"),
        answering(tiny),
    ]
    outcomes, peak_megabytes = measured([*scripts, answering(encoded(page(minutes(3))))])
    longer = "the answer is longer than 120000000 bytes"
    assert outcomes == [longer] * 3 + ["the answer holds more than 600000 objects", 3]
    assert peak_megabytes < LIMIT_MEGABYTES


def test_answers_that_fail_at_their_very_end_leave_nothing_behind() -> None:
    """Each is large, and none of it is kept with the reason."""
    shots = minutes(2, size=40_000)
    shots[-1]["samples"][-1]["uplink_bytes_total"] = -1
    outcomes, peak_megabytes = measured([answering(encoded(page(shots)))] * 4)
    why = "snapshot 2: samples[39999].uplink_bytes_total: expected int >= 0"
    assert outcomes == [why] * 4
    assert peak_megabytes < LIMIT_MEGABYTES / 2


def test_the_heaviest_answer_that_is_decoded_fits() -> None:
    """As long and as full of samples as the limits let pass."""
    ballast = [f"{number:019d}" for number in range(2_400_000)]
    shots = minutes(3, size=99_999)
    body = encoded(page(shots, ballast=ballast))
    assert len(body) > 99_000_000
    outcomes, peak_megabytes = measured([answering(body)])
    assert outcomes == [3]
    assert peak_megabytes < LIMIT_MEGABYTES


def measured(scripts: list[Script]) -> tuple[list[object], float]:
    """Return what each server's source ends in, and the peak memory of the process in MB."""
    with contextlib.ExitStack() as servers:
        urls = [servers.enter_context(serving(script)).url for script in scripts]
        done = subprocess.run(  # noqa: S603 - our own interpreter and our own script
            [sys.executable, "-c", FETCH_ALL, *urls],
            capture_output=True,
            check=True,
            timeout=180,
        )
    result = json.loads(done.stdout)
    outcomes = [result["outcomes"][str(number)] for number in range(len(scripts))]
    return outcomes, result["peak_megabytes"]
