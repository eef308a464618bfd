"""The scenarios, those marked that the program does not get right yet, and why."""

from __future__ import annotations

import pytest

from billing_cli.simulator.scenarios.library import BY_NAME

FAILING = {
    "two counters with equal traffic look the same": ("duplicate_from_the_start",),
    "a restart under heavy traffic looks the same": ("clock_ahead_heavy_boot",),
}
REASON = {name: reason for reason, names in FAILING.items() for name in names}

NAMES = [
    pytest.param(
        name,
        marks=[pytest.mark.xfail(reason=REASON[name], strict=True)] if name in REASON else [],
    )
    for name in BY_NAME
]
