"""What happens to a fleet while it is billed. Each story ends with every snapshot applied.

A story builds its fleet, plays the minutes one by one, and leaves the judgement to the test. The
books are checked after each run within it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from billing_cli.jobs.catch_up import catch_up

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.integration.jobs.world import World

# After a restart less flows, so that no counter catches up with what it showed before: such a
# restart nobody could see.
SLOWER = 0.01


def plain(world: World) -> None:
    """Three users on one node, polled and collected every minute."""
    world.add_node("jp-1", world.add_users(3))
    world.flow_until(8)
    world.collect_every_minute(1, 9)


def every_run_three_times(world: World) -> None:
    """The timer is broken, or an operator impatient."""
    world.repeats = 3
    plain(world)


def a_user_on_two_inbounds(world: World) -> None:
    """One account, two counter pairs on one node."""
    users = world.add_users(2)
    node = world.add_node("jp-1", users)
    node.add_stream(users[0].uuid, "grpc")
    world.flow_until(8)
    world.collect_every_minute(1, 9)


def polled_every_15_seconds(world: World) -> None:
    """Four snapshots in each minute."""
    world.add_node("jp-1", world.add_users(3))
    world.flow_until(8, poll_seconds=15)
    world.collect_every_minute(1, 9)


def counters_reset_and_dropped(world: World) -> None:
    """After the restart, a user is missing from snapshots until traffic flows again."""
    node = world.add_node("jp-1", world.add_users(4))
    world.flow_until(4, poll_seconds=15)
    node.restart_xray(world.at(4), drop_counters=True)
    world.flow_until(8, poll_seconds=15, rate=1e5 * SLOWER)
    world.collect_every_minute(1, 9)


def exporter_down_for_six_minutes(world: World) -> None:
    """No polls, no answers; traffic flows on, and the next snapshot tells of it."""
    node = world.add_node("jp-1", world.add_users(3))
    world.add_node("us-1", world.add_users(1))
    node.hide(world.at(3), world.at(9))
    world.flow_until(12)
    world.collect_every_minute(1, 4)
    world.collect_every_minute(10, 13)


def pages_of_two_snapshots(world: World) -> None:
    """A backlog that comes in small pages."""
    world.add_node("jp-1", world.add_users(2))
    world.flow_until(15)
    world.running["jp-1"].max_page = 2
    world.run(world.at(17), catch_up)


def pages_that_split_minutes(world: World) -> None:
    """Pages of two while each minute has four snapshots, in steps of hardly a minute each."""
    world.add_node("jp-1", world.add_users(2))
    world.flow_until(8, poll_seconds=15)
    world.fetching = replace(world.fetching, page_limit=2, step_max_samples=9)
    world.running["jp-1"].seam = "next"
    world.run(world.at(3), catch_up)
    world.running["jp-1"].seam = "repeat"
    assert world.run(world.at(10), catch_up).steps > 2


def two_nodes_with_the_same_users(world: World) -> None:
    """Everyone uses both, on lines of the same name."""
    users = world.add_users(3)
    world.add_node("jp-1", users)
    world.add_node("us-1", users)
    world.flow_until(8)
    world.collect_every_minute(1, 9)


def two_environments(world: World) -> None:
    """The same node id in two environments, and in none."""
    users = world.add_users(2)
    for source_id, env in (("live", "prod"), ("trial", "stage"), ("bare", "")):
        node = world.fleet.add_node(source_id, "node-1", env)
        for user in users:
            node.add_stream(user.uuid)
    world.flow_until(6)
    world.collect_every_minute(1, 7)


def idle_users(world: World) -> None:
    """Most users do nothing; one of them wakes up late."""
    users = world.add_users(6)
    node = world.add_node("jp-1", users[:2])
    sleepers = [node.add_stream(user.uuid, "xhttp", idle=True) for user in users[2:]]
    world.flow_until(5)
    node.flow(sleepers[0], 1000, 2000)
    world.flow_until(8)
    world.collect_every_minute(1, 9)


def an_unknown_uuid_becomes_a_user(world: World) -> None:
    """It is charged for all that flowed before it registered, but never twice."""
    node = world.add_node("jp-1", world.add_users(2))
    stranger = world.fleet.new_uuid()
    node.add_stream(stranger)
    world.flow_until(9)
    world.collect_every_minute(1, 5)
    world.pending_allowed = True
    world.fleet.add_user(proxy_uuid=stranger)
    world.save_users()
    world.collect_every_minute(5, 10)
    world.unknown_buckets = True


def an_unknown_uuid_is_reset(world: World) -> None:
    """Its counters restart twice before its account appears."""
    node = world.add_node("jp-1", world.add_users(1))
    stranger = world.fleet.new_uuid()
    node.add_stream(stranger)
    for epoch, minutes in enumerate((2, 4)):
        world.flow_until(minutes, rate=1e5 * SLOWER**epoch)
        node.restart_xray(world.at(minutes))
    world.flow_until(9, rate=1e5 * SLOWER**2)
    world.collect_every_minute(1, 6)
    world.pending_allowed = True
    world.fleet.add_user(uuid=stranger)
    world.save_users()
    world.collect_every_minute(7, 10)
    world.unknown_buckets = True


def an_unknown_uuid_falls_idle(world: World) -> None:
    """Nothing flows any more when its account appears; the source's next snapshot settles it."""
    node = world.add_node("jp-1", world.add_users(1))
    stranger = world.fleet.new_uuid()
    stream = node.add_stream(stranger, idle=True)
    world.flow_until(2)
    node.flow(stream, 10_000, 20_000)
    world.flow_until(9)
    world.collect_every_minute(1, 5)
    world.pending_allowed = True
    world.fleet.add_user(uuid=stranger)
    world.save_users()
    world.collect_every_minute(6, 10)
    world.unknown_buckets = True


def a_proxy_uuid_is_renewed(world: World) -> None:
    """What still flows under the old one belongs to the user as before."""
    users = world.add_users(2)
    node = world.fleet.add_node("jp-1")
    for user in users:
        node.add_stream(user.proxy_uuid)
    world.flow_until(4)
    world.collect_every_minute(1, 5)
    node.add_stream(world.fleet.renew_proxy(users[0]))
    world.save_users()
    world.flow_until(8)
    world.collect_every_minute(6, 9)


def a_stream_appears_later(world: World) -> None:
    """It begins at 0, so that its first total is charged."""
    users = world.add_users(3)
    node = world.add_node("jp-1", users[:2])
    world.flow_until(4)
    node.add_stream(users[2].uuid, "xhttp")
    world.flow_until(8)
    world.collect_every_minute(1, 9)


def a_stream_vanishes_and_returns(world: World) -> None:
    """Its counters went on meanwhile."""
    users = world.add_users(3)
    node = world.add_node("jp-1", users)
    node.hide_stream(world.stream(node, users[1]), world.at(2.5), world.at(5.5))
    world.flow_until(8)
    world.collect_every_minute(1, 9)


def a_stream_vanishes_and_returns_within_a_run(world: World) -> None:
    """Seen, missing and seen again among the snapshots of one minute."""
    users = world.add_users(3)
    node = world.add_node("jp-1", users)
    node.hide_stream(world.stream(node, users[1]), world.at(2.2), world.at(2.7))
    node.hide_stream(world.stream(node, users[2]), world.at(3.7), world.at(5.3))
    world.flow_until(8, poll_seconds=15)
    world.collect_every_minute(1, 2)
    world.collect_every_minute(8, 9)


def latest_snapshots_only(world: World) -> None:
    """An older exporter, by configuration."""
    world.add_node("jp-1", world.add_users(3))
    world.running["jp-1"].windowed = False
    world.overrides["jp-1"] = {"mode": "latest"}
    world.flow_until(8)
    world.collect_every_minute(0, 8)


def auto_falls_back(world: World) -> None:
    """An older exporter, found out, and later replaced by one with windows."""
    world.add_node("jp-1", world.add_users(3))
    world.running["jp-1"].windowed = False
    world.flow_until(8)
    world.collect_every_minute(0, 4)
    world.running["jp-1"].windowed = True
    world.collect_every_minute(5, 9)


def quota_runs_out_within_a_minute(world: World) -> None:
    """The last included byte is somewhere in the middle; later ones are all rated."""
    world.quota = 30_000_001
    plain(world)


def arrears(world: World) -> None:
    """The balance goes below 0 and further down."""
    world.quota = 0
    world.balance = world.price * 1_000_000
    plain(world)


def a_long_pause(world: World) -> None:
    """Nobody collects for a while; one run then takes all that is there."""
    world.add_node("jp-1", world.add_users(2))
    world.flow_until(40)
    world.collect_every_minute(1, 3)
    world.collect_every_minute(30, 30)
    world.collect_every_minute(40, 41)


STORIES: tuple[Callable[[World], None], ...] = (
    plain,
    every_run_three_times,
    a_user_on_two_inbounds,
    polled_every_15_seconds,
    counters_reset_and_dropped,
    exporter_down_for_six_minutes,
    pages_of_two_snapshots,
    pages_that_split_minutes,
    two_nodes_with_the_same_users,
    two_environments,
    idle_users,
    an_unknown_uuid_becomes_a_user,
    an_unknown_uuid_is_reset,
    an_unknown_uuid_falls_idle,
    a_proxy_uuid_is_renewed,
    a_stream_appears_later,
    a_stream_vanishes_and_returns,
    a_stream_vanishes_and_returns_within_a_run,
    latest_snapshots_only,
    auto_falls_back,
    quota_runs_out_within_a_minute,
    arrears,
    a_long_pause,
)
