"""Upgrades of an exporter that are rolled back: former names return, the later ones vanish."""

from __future__ import annotations

from billing_cli.simulator.publication import as_counted, merged, retagged
from billing_cli.simulator.scenarios.actions import (
    burst,
    open_inbound,
    restart,
    set_traffic,
    upgrade,
    upgrade_to_accounts,
)
from billing_cli.simulator.scenarios.playing import Person, Scenario

WITH_IDLE = {
    "alice": Person(("xhttp", "tcp"), "proxy"),
    "bob": Person(("xhttp",), "proxy"),
    "carol": Person(("tcp",)),
    "idle": Person(is_idle=True),
}
RESTARTED_MERGE = {5: [restart(), upgrade(merged)], 12: [upgrade(as_counted)]}

ROLLBACKS = (
    Scenario(
        "rollback_without_traffic",
        "an upgrade is taken back while nothing flows, and so it was made",
        {5: [upgrade(merged)], 12: [upgrade(as_counted)]},
        quiet=(4, 5, 6, 11, 12, 13),
    ),
    Scenario(
        "rollback_with_missed_snapshots",
        "both exporters miss their first polls",
        {5: [upgrade_to_accounts()], 12: [upgrade(as_counted)]},
        users=WITH_IDLE,
        missed=(5, 12),
    ),
    Scenario(
        "rollback_with_restart",
        "xray restarts in the minute in which the upgrade is taken back",
        {5: [upgrade(merged)], 12: [restart(), upgrade(as_counted)]},
    ),
    Scenario(
        "rollback_with_restart_of_young_counters",
        "the same; one user had used hardly anything before the upgrade",
        {
            5: [open_inbound("idle", "tcp"), burst("idle", "tcp", 10, 90), upgrade(merged)],
            8: [burst("idle", "tcp", 50_000, 500_000)],
            12: [restart(), upgrade(as_counted), burst("idle", "tcp", 2_000, 9_000)],
        },
    ),
    Scenario(
        "rollback_of_merge_with_restart",
        "xray restarted in the minute of the upgrade: the former names return below their totals",
        RESTARTED_MERGE,
    ),
    Scenario(
        "rollback_of_merge_with_restart_without_traffic",
        "the same while nothing flows",
        RESTARTED_MERGE,
        quiet=(11, 12, 13),
    ),
    Scenario(
        "rollback_of_merge_with_restart_overtaken",
        "the same; one counter is above its totals before the restart by then",
        {**RESTARTED_MERGE, 8: [burst("alice", "tcp", 9_000_000, 90_000_000)]},
    ),
    Scenario(
        "rollback_of_merge_with_restart_hours_later",
        "the same three hours later, with all counters above their totals before the restart",
        {5: [restart(), upgrade(merged)], 185: [upgrade(as_counted)]},
        minutes=190,
        away=[minute for minute in range(10, 180) if minute % 20],
        opening=1_000,
    ),
    Scenario(
        "rollback_of_merge_with_restart_half_a_day_later",
        "the same twelve hours later; the exporter takes a snapshot an hour",
        {5: [restart(), upgrade(merged)], 725: [upgrade(as_counted)]},
        minutes=730,
        missed=[minute for minute in range(10, 720) if minute % 60],
        away=[minute for minute in range(10, 720) if minute % 60],
    ),
    Scenario(
        "rollback_of_account_uuids_with_restart",
        "the same with account uuids in place of proxy uuids, added up",
        {5: [restart(is_absent=True), upgrade_to_accounts(then=merged)], 12: [upgrade(as_counted)]},
        users=WITH_IDLE,
    ),
    Scenario(
        "rollback_of_tag_given_to_another_with_restart",
        "two tags become one of them, with a restart; then they are two again",
        {5: [restart(), upgrade(retagged({"xhttp": "tcp"}))], 12: [upgrade(as_counted)]},
    ),
    Scenario(
        "rollback_of_rename_with_new_inbound",
        "a user has one more inbound when the names return",
        {
            5: [restart(), upgrade(retagged({"xhttp": "x", "tcp": "t"}))],
            8: [open_inbound("alice", "grpc")],
            12: [upgrade(as_counted)],
        },
    ),
    Scenario(
        "rollback_twice",
        "an upgrade, back, once more, and back again, the first time with a restart",
        {
            4: [restart(), upgrade(merged)],
            7: [upgrade(as_counted)],
            10: [upgrade(merged)],
            13: [upgrade(as_counted)],
        },
    ),
    Scenario(
        "rollback_twice_with_restarts",
        "the same with a restart each time, after which less flows",
        {
            4: [restart(), upgrade(merged), set_traffic(40)],
            7: [restart(), upgrade(as_counted), set_traffic(15)],
            10: [restart(), upgrade(merged), set_traffic(5)],
            13: [restart(), upgrade(as_counted), set_traffic(1)],
        },
    ),
    Scenario(
        "rollback_before_idle_user_returns",
        "the same as the merge with a restart; an idle user returns later, below its totals",
        {
            3: [burst("idle", "xhttp", 50_000, 500_000)],
            5: [restart(is_absent=True), upgrade(merged)],
            10: [upgrade(as_counted)],
            15: [burst("idle", "xhttp", 1_000, 9_000)],
        },
        users={"alice": Person(), "idle": Person(is_idle=True)},
    ),
)
