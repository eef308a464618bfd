"""What may happen to a node between two polls, as functions that make an `Action`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from billing_cli.simulator.publication import as_counted, both, in_turn, with_uuids

if TYPE_CHECKING:
    from datetime import timedelta

    from billing_cli.simulator.process import Direction
    from billing_cli.simulator.publication import Naming
    from billing_cli.simulator.scenarios.playing import Action, Stage


def upgrade(naming: Naming) -> Action:
    """Replace the exporter by one that uses other names; the process goes on."""

    def act(stage: Stage) -> None:
        stage.node.naming = naming

    return act


def restart(*, is_absent: bool = False) -> Action:
    """Restart xray: counters stand at 0, or (`is_absent`) are missing until their first byte."""

    def act(stage: Stage) -> None:
        stage.node.restart_xray(stage.now, drop_counters=is_absent)

    return act


def set_clock(error: timedelta) -> Action:
    """Set the exporter's clock to be off by so much."""

    def act(stage: Stage) -> None:
        stage.node.clock_error = error

    return act


def lose_history() -> Action:
    """Restart the exporter: the snapshots that it had are gone."""

    def act(stage: Stage) -> None:
        stage.node.lose_history(stage.now)

    return act


def count_users(*, is_on: bool) -> Action:
    """Switch xray's user statistics on or off: without, snapshots have no samples."""

    def act(stage: Stage) -> None:
        stage.node.has_statistics = is_on

    return act


def burst(person: str, inbound: str, uplink: int, downlink: int) -> Action:
    """Let bytes flow through one counter, at once."""

    def act(stage: Stage) -> None:
        stage.node.flow(stage.streams[person, inbound], uplink, downlink)

    return act


def splice(person: str, inbound: str, uplink: int, downlink: int) -> Action:
    """Let bytes flow through a spliced connection, which is counted when it closes."""

    def act(stage: Stage) -> None:
        stage.node.process.splice(stage.streams[person, inbound], uplink, downlink)

    return act


def close_splices(person: str, inbound: str) -> Action:
    """Close the spliced connections of a counter."""

    def act(stage: Stage) -> None:
        stage.node.process.close_splices(stage.streams[person, inbound])

    return act


def reset_counters(person: str, inbound: str, *directions: Direction) -> Action:
    """Start single counters of a pair from 0, as a query of xray's statistics with reset does."""

    def act(stage: Stage) -> None:
        for direction in directions:
            stage.node.process.reset_counter(stage.streams[person, inbound], direction)

    return act


def misreport(person: str, inbound: str, uplink: int) -> Action:
    """Let the exporter's last snapshot have reported too small an uplink total."""

    def act(stage: Stage) -> None:
        index = stage.streams[person, inbound].index
        stage.node.snapshots[-1].totals[2 * index] -= uplink

    return act


def open_inbound(person: str, inbound: str) -> Action:
    """Let a user come in through one more inbound: a counter that begins at 0."""

    def act(stage: Stage) -> None:
        stage.add_stream(person, inbound)

    return act


def leave_out(person: str, inbound: str) -> Action:
    """Let the exporter leave a counter out from now on; nothing flows through it any more."""

    def act(stage: Stage) -> None:
        stream = stage.streams[person, inbound]
        stream.idle = True
        stage.node.hide_stream(stream, stage.now, stage.now.replace(year=9999))

    return act


def wake(person: str, inbound: str) -> Action:
    """Let an idle user begin to use the node."""

    def act(stage: Stage) -> None:
        stage.streams[person, inbound].idle = False

    return act


def set_traffic(factor: int) -> Action:
    """Multiply the traffic from now on."""

    def act(stage: Stage) -> None:
        stage.factor = factor

    return act


def upgrade_to_accounts(*, then: Naming = as_counted, keeps_proxies: bool = False) -> Action:
    """Upgrade the exporter to one that publishes account uuids in place of proxy uuids.

    With `keeps_proxies` it publishes both. `then` is applied to the names that result.
    """

    def act(stage: Stage) -> None:
        naming = with_uuids({user.proxy_uuid: user.uuid for user in stage.fleet.users})
        stage.node.naming = in_turn(both(as_counted, naming) if keeps_proxies else naming, then)

    return act
