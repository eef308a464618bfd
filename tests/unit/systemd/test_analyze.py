"""What systemd's own programs say of the units."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from tests.unit.systemd.units import DIRECTORY, SERVICES, copied_units, setting, systemd_analyze

if TYPE_CHECKING:
    from pathlib import Path

MOST_EXPOSURE = 1.3


def test_the_units_are_right(tmp_path: Path) -> None:
    """No unknown setting, no program that is missing: nothing is said about any of them."""
    for path in copied_units(tmp_path):
        judged = systemd_analyze("verify", path)
        assert (judged.returncode, judged.stdout, judged.stderr) == (0, "", ""), path.name


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_exposes_little(name: str) -> None:
    """The sandbox is rated without a running systemd, on the scale from 0 to 10."""
    judged = systemd_analyze("security", "--offline=true", "--no-pager", DIRECTORY / name)
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", judged.stdout)
    assert found is not None, judged.stderr
    assert float(found[1]) <= MOST_EXPOSURE


@pytest.mark.parametrize(
    ("timer", "first", "step"),
    [
        ("billing-collect.timer", (0, 5), timedelta(minutes=1)),
        ("billing-reconcile.timer", (20, 35), timedelta(hours=1)),
        ("billing-suspend.timer", (40, 35), timedelta(days=1)),
    ],
)
def test_a_timer_elapses_when_it_should(
    timer: str, first: tuple[int, int], step: timedelta
) -> None:
    """Every minute at five seconds past, and every hour between two of those."""
    calendar = setting(timer, "OnCalendar")
    judged = systemd_analyze(
        "calendar", "--base-time=2026-04-08 12:00:00 UTC", "--iterations=3", calendar
    )
    elapses = [
        datetime.strptime(text, "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC)
        for text in re.findall(
            r"(?:Next elapse|Iter\. #\d): \w+ ([\d-]+ [\d:]+) UTC", judged.stdout
        )
    ]
    start = datetime(2026, 4, 8, 12, *first, tzinfo=UTC)
    assert elapses == [start, start + step, start + 2 * step]
