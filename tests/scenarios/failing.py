"""The scenarios, those marked that the program does not get right yet, and why."""

from __future__ import annotations

import pytest

from billing_cli.simulator.scenarios.library import BY_NAME

FAILING = {
    "a new name counts as new, and started at 0": (
        "merge",
        "merge_without_traffic",
        "merge_with_missed_snapshot",
        "merge_in_outage",
        "merge_collector_away",
        "merge_after_empty_snapshots",
        "merge_into_existing_stream",
        "merge_of_two_tags",
        "split",
        "rename",
        "two_upgrades",
        "upgrade_and_rollback",
        "proxy_to_account",
        "proxy_to_account_and_merge",
        "unresolved_merge",
    ),
    "a duplicate of a present counter is charged": (
        "duplicate_published",
        "duplicate_tag_published",
        "duplicate_sum_published",
        "duplicate_from_the_start",
    ),
    "any decrease counts as a restart, without a look at the next snapshot": (
        "clock_ahead_one_missed_poll",
        "clock_ahead_two_missed_polls",
        "clock_ahead_heavy_boot",
        "clock_back_collector_away",
        "clock_back_interleaved",
        "clock_back_live",
        "clock_back_and_restart",
        "clock_forward_and_corrected",
        "counter_misreported",
        "counter_reset",
    ),
    "a restart counts only for the streams that show it": (
        "restart_overtaken",
        "restart_returning_above",
    ),
    "the plausible rate looks at the last minute only": ("spliced_connection",),
}
REASON = {name: reason for reason, names in FAILING.items() for name in names}

NAMES = [
    pytest.param(
        name,
        marks=[pytest.mark.xfail(reason=REASON[name], strict=False)] if name in REASON else [],
    )
    for name in BY_NAME
]
