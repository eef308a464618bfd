"""The scenarios, by what they are about."""

from __future__ import annotations

from datetime import timedelta

from billing_cli.simulator.publication import as_counted, both, merged, retagged
from billing_cli.simulator.scenarios.actions import (
    burst,
    close_splices,
    count_users,
    leave_out,
    lose_history,
    misreport,
    open_inbound,
    reset_counters,
    restart,
    set_clock,
    set_traffic,
    splice,
    upgrade,
    upgrade_to_accounts,
    wake,
)
from billing_cli.simulator.scenarios.playing import Person, Scenario
from billing_cli.simulator.scenarios.rollbacks import ROLLBACKS

GIGABYTE = 10**9
PROXIED = {
    "alice": Person(("xhttp", "tcp"), "proxy"),
    "bob": Person(("xhttp",), "proxy"),
    "carol": Person(("tcp",)),
}
UNRESOLVED = {"nobody": Person(("xhttp", "tcp"), "unresolved"), "bob": Person()}
MERGED_TAG = {"alice": Person(("", "xhttp", "tcp")), "bob": Person()}
MERGES = {10: [upgrade(merged)]}


def _ahead(minutes: int) -> timedelta:
    return timedelta(minutes=minutes)


UPGRADES = (
    Scenario("merge", "an exporter upgrade adds all inbounds up under the tag ''", MERGES),
    Scenario(
        "merge_without_traffic",
        "nothing flows around the upgrade, so that the sums are equal",
        MERGES,
        quiet=(9, 10, 11),
    ),
    Scenario(
        "merge_with_missed_snapshot",
        "the new exporter misses its first poll",
        MERGES,
        missed=(10,),
    ),
    Scenario(
        "merge_in_outage",
        "the exporter is away for nine minutes and comes back upgraded",
        MERGES,
        missed=range(6, 15),
    ),
    Scenario(
        "merge_collector_away",
        "the collector is away while the exporter is upgraded",
        MERGES,
        away=range(6, 16),
    ),
    Scenario(
        "merge_with_restart",
        "xray restarts in the minute of the upgrade: the totals are lower, and began at 0",
        {10: [restart(), upgrade(merged)]},
    ),
    Scenario(
        "merge_with_restart_absent",
        "the same, and idle users have no counters after the restart",
        {10: [restart(is_absent=True), upgrade(merged)]},
    ),
    Scenario(
        "merge_with_restart_overtaken",
        "the same, and the new counters pass the old ones before the first poll: undecidable",
        {10: [restart(), upgrade(merged), burst("alice", "tcp", 50_000_000, 500_000_000)]},
        is_exact=False,
    ),
    Scenario(
        "merge_after_empty_snapshots",
        "xray has no user statistics for some minutes, and the exporter comes back upgraded",
        {7: [count_users(is_on=False)], 10: [upgrade(merged)], 12: [count_users(is_on=True)]},
    ),
    Scenario(
        "merge_into_existing_stream",
        "one inbound has the tag '' before the upgrade already",
        MERGES,
        users=MERGED_TAG,
    ),
    Scenario(
        "merge_of_two_tags",
        "two of three inbounds get one new tag, the third keeps its own",
        {10: [upgrade(retagged({"tcp": "stream", "grpc": "stream"}))]},
        users={"alice": Person(("xhttp", "tcp", "grpc")), "bob": Person(("tcp",))},
    ),
    Scenario(
        "split",
        "an exporter upgrade publishes each inbound of what was one counter",
        {10: [upgrade(as_counted)]},
        naming=merged,
    ),
    Scenario(
        "rename",
        "a tag is renamed",
        {10: [upgrade(retagged({"xhttp": "xhttp-premium"}))]},
    ),
    Scenario(
        "upgrade_and_rollback",
        "the upgrade is taken back after five minutes, and the old names return",
        {10: [upgrade(merged)], 15: [upgrade(as_counted)]},
    ),
    Scenario(
        "two_upgrades",
        "tags are merged, and a minute later the merged tag gets a name",
        {10: [upgrade(merged)], 11: [upgrade(retagged({"xhttp": "all", "tcp": "all"}))]},
    ),
    Scenario(
        "vanished_long_ago",
        "an inbound vanishes; minutes later another one begins, at 0, and grows beyond it",
        {
            4: [leave_out("alice", "tcp")],
            12: [
                open_inbound("alice", "grpc"),
                burst("alice", "grpc", 9_000_000, 90_000_000),
            ],
        },
    ),
)

UUIDS = (
    Scenario(
        "proxy_to_account",
        "an exporter upgrade publishes account uuids in place of proxy uuids",
        {10: [upgrade_to_accounts()]},
        users=PROXIED,
    ),
    Scenario(
        "proxy_to_account_and_merge",
        "the same upgrade adds the inbounds up",
        {10: [upgrade_to_accounts(then=merged)]},
        users=PROXIED,
    ),
    Scenario(
        "unresolved_merge",
        "inbounds of a uuid without an account are added up",
        MERGES,
        users=UNRESOLVED,
    ),
    Scenario(
        "unresolved_merge_with_restart",
        "the same, and xray restarts in that minute",
        {10: [restart(), upgrade(merged)]},
        users=UNRESOLVED,
    ),
)

DUPLICATES = (
    Scenario(
        "duplicate_published",
        "an upgrade publishes each counter twice: under the proxy uuid and the account uuid",
        {10: [upgrade_to_accounts(keeps_proxies=True)]},
        users=PROXIED,
    ),
    Scenario(
        "duplicate_tag_published",
        "an upgrade publishes one inbound under two tags",
        {10: [upgrade(both(as_counted, retagged({"tcp": "tcp-2", "xhttp": "xhttp-2"})))]},
    ),
    Scenario(
        "duplicate_sum_published",
        "an upgrade publishes each inbound and, in addition, their sum under the tag ''",
        {10: [upgrade(both(as_counted, merged))]},
    ),
    Scenario(
        "duplicate_from_the_start",
        "each counter is published under two tags from the first snapshot on",
        {},
        naming=both(as_counted, retagged({"tcp": "tcp-2", "xhttp": "xhttp-2"})),
    ),
)

RESTARTS = (
    Scenario("restart_active", "xray restarts under traffic", {10: [restart()]}),
    Scenario(
        "restart_absent",
        "xray restarts; idle users have no counter until their first byte",
        {10: [restart(is_absent=True)], 15: [wake("idle", "xhttp")]},
    ),
    Scenario(
        "restart_idle",
        "xray restarts when hardly any user is active",
        {10: [restart()], 15: [wake("idle", "xhttp")]},
        quiet=(9, 10, 11, 12),
    ),
    Scenario(
        "restart_returning_above",
        "an idle user returns after a restart, in one minute above the totals before it",
        {
            10: [restart(is_absent=True)],
            15: [wake("idle", "xhttp"), burst("idle", "xhttp", 9_000_000, 90_000_000)],
        },
    ),
    Scenario(
        "restart_overtaken",
        "after a restart one user passes the totals before it at once, the others do not",
        {10: [restart(), burst("alice", "tcp", 9_000_000, 90_000_000)]},
    ),
    Scenario(
        "restart_all_overtaken",
        "all counters pass their old totals before the first poll: nothing shows",
        {10: [restart()]},
        users={"alice": Person(("xhttp", "tcp")), "bob": Person()},
        opening=1,
        quiet=range(10),
    ),
    Scenario(
        "restart_of_one_user",
        "xray restarts on a node with one counter, which passes its old totals later on",
        {5: [restart()]},
        users={"alice": Person()},
        opening=1_000,
        is_exact=False,
    ),
    Scenario(
        "crash_loop",
        "xray restarts in four minutes in a row, each with less traffic than the one before",
        {
            10: [restart(), set_traffic(9)],
            11: [restart(), set_traffic(5)],
            12: [restart(), set_traffic(3)],
            13: [restart(), set_traffic(1)],
        },
        is_exact=False,
    ),
    Scenario(
        "crash_loop_hidden",
        "the same with ever more traffic: the later restarts do not show, and hide a minute each",
        {minute: [restart()] for minute in (10, 11, 12, 13)},
    ),
    Scenario(
        "crash_loop_in_one_minute",
        "xray restarts three times between two polls",
        {10: [restart(), set_traffic(2), restart(is_absent=True), set_traffic(1), restart()]},
    ),
    Scenario(
        "counter_misreported",
        "one snapshot reports too small an uplink total, the next one is right again",
        {11: [misreport("alice", "xhttp", 500_000)]},
    ),
    Scenario(
        "counter_reset",
        "the uplink counter of one user starts again from 0, everything else goes on",
        {10: [reset_counters("alice", "xhttp", "uplink")]},
    ),
    Scenario(
        "user_counters_reset",
        "both counters of one user start again from 0; xray and all others go on",
        {10: [reset_counters("bob", "xhttp", "uplink", "downlink")]},
    ),
)

BOOT_AHEAD = {10: [restart(), set_clock(_ahead(20))]}

CLOCKS = (
    Scenario(
        "clock_ahead_at_boot",
        "a node boots with its clock 20 minutes ahead; every stale stamp is replaced",
        {**BOOT_AHEAD, 12: [set_clock(_ahead(0))]},
        minutes=40,
    ),
    Scenario(
        "clock_ahead_one_missed_poll",
        "the same, and a poll is missed 20 minutes later: one stale snapshot stays",
        {**BOOT_AHEAD, 12: [set_clock(_ahead(0))]},
        minutes=40,
        missed=(31,),
    ),
    Scenario(
        "clock_ahead_then_no_statistics",
        "the same, and xray has no user statistics in the minute after the stale snapshot",
        {
            **BOOT_AHEAD,
            12: [set_clock(_ahead(0))],
            32: [count_users(is_on=False)],
            33: [count_users(is_on=True)],
        },
        minutes=40,
        missed=(31,),
    ),
    Scenario(
        "clock_ahead_two_missed_polls",
        "the same with two missed polls: two stale snapshots in a row look like a restart",
        {**BOOT_AHEAD, 13: [set_clock(_ahead(0))]},
        minutes=40,
        missed=(31, 32),
    ),
    Scenario(
        "clock_ahead_heavy_boot",
        "the same, and more flowed by the stale snapshots than in the minute after them",
        {**BOOT_AHEAD, 11: [set_traffic(50)], 13: [set_clock(_ahead(0)), set_traffic(1)]},
        minutes=40,
        missed=(31, 32),
    ),
    Scenario(
        "clock_back_collector_away",
        "the clock is set back by 5 minutes while the collector is away; a stale snapshot stays",
        {12: [set_clock(_ahead(-5))]},
        minutes=30,
        missed=(13,),
        away=range(6, 20),
    ),
    Scenario(
        "clock_back_interleaved",
        "the same with stamps to the microsecond: every second snapshot is of the old time line",
        {12: [set_clock(_ahead(-5))]},
        minutes=30,
        away=range(6, 20),
        truncates_stamps=False,
    ),
    Scenario(
        "clock_back_live",
        "the clock is set back by 5 minutes under a live collector: replaced behind its back",
        {12: [set_clock(_ahead(-5))]},
        minutes=70,
    ),
    Scenario(
        "clock_back_and_restart",
        "the clock is set back by a reboot while the collector is away, with a stale snapshot",
        {12: [restart(), set_clock(_ahead(-5))]},
        minutes=30,
        missed=(13,),
        away=range(6, 20),
        is_exact=False,
    ),
    Scenario(
        "clock_back_with_upgrade",
        "before the first run the clock is set back with an upgrade: a stale one has former names",
        {3: [upgrade(merged), set_clock(_ahead(-5))]},
        minutes=30,
        missed=(6,),
        away=range(20),
    ),
    Scenario(
        "clock_forward_and_corrected",
        "the clock is 10 minutes ahead for five minutes, without a restart",
        {10: [set_clock(_ahead(10))], 15: [set_clock(_ahead(0))]},
        minutes=35,
        missed=(22,),
    ),
    Scenario(
        "clock_forward_for_good",
        "a clock that was 10 minutes behind is set right: a gap without loss",
        {0: [set_clock(_ahead(-10))], 10: [set_clock(_ahead(0))]},
        minutes=30,
    ),
)

DELAYS = (
    Scenario(
        "spliced_connection",
        "40 GB are counted when a spliced connection closes, after an hour of silence",
        {
            8: [splice("alice", "tcp", GIGABYTE, 39 * GIGABYTE)],
            70: [close_splices("alice", "tcp")],
        },
        users={"alice": Person(("tcp",), is_idle=True), "bob": Person()},
        minutes=75,
    ),
    Scenario(
        "spliced_connection_soon_after_baseline",
        "the same 40 GB in the second minute that is known of the node: held",
        {
            1: [splice("alice", "tcp", GIGABYTE, 39 * GIGABYTE)],
            2: [close_splices("alice", "tcp")],
        },
        users={"alice": Person(("tcp",)), "bob": Person()},
    ),
    Scenario(
        "spliced_connection_cut_by_restart",
        "xray restarts while a spliced connection is open: its bytes are never counted",
        {8: [splice("alice", "tcp", GIGABYTE, 39 * GIGABYTE)], 15: [restart()]},
    ),
    Scenario(
        "history_lost",
        "the exporter restarts without its history while the collector is away",
        {10: [lose_history()]},
        away=range(7, 14),
    ),
    Scenario(
        "history_lost_with_restart",
        "node and exporter restart without history while the collector is away",
        {10: [restart(), lose_history()]},
        away=range(7, 14),
    ),
    Scenario(
        "empty_snapshots",
        "xray has no user statistics for some minutes; the counters go on",
        {7: [count_users(is_on=False)], 12: [count_users(is_on=True)]},
    ),
    Scenario(
        "restart_behind_empty_snapshots",
        "xray restarts while there are no user statistics",
        {7: [count_users(is_on=False)], 9: [restart()], 12: [count_users(is_on=True)]},
    ),
    Scenario(
        "outage",
        "the exporter is down for nine minutes, traffic flows on",
        {},
        missed=range(6, 15),
    ),
)

SCENARIOS: tuple[Scenario, ...] = (
    *UPGRADES,
    *ROLLBACKS,
    *UUIDS,
    *DUPLICATES,
    *RESTARTS,
    *CLOCKS,
    *DELAYS,
)
BY_NAME = {scenario.name: scenario for scenario in SCENARIOS}
