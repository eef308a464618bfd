"""The first run on a database where the legacy writer was before us."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from billing_cli.core.takeover import split_checkpoints
from billing_cli.core.times import minute_of
from billing_cli.database.takeover import read_legacy_checkpoints

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from collections.abc import Set as AbstractSet
    from datetime import datetime

    from psycopg import Connection

    from billing_cli.core.model import Checkpoint, Snapshot, StreamName


def take_over(
    connection: Connection,
    nodes: Mapping[str, tuple[Sequence[Snapshot], AbstractSet[StreamName]]],
    accounts: Mapping[str, str],
) -> dict[str, dict[StreamName, Checkpoint]]:
    """Return, by stored node id, the checkpoints that the legacy writer left for unknown streams.

    `nodes` holds each node's snapshots to be applied and the streams that we have no row of;
    `accounts` are by sample uuid.
    """
    resolved = {
        accounts[name.sample_uuid]
        for _, names in nodes.values()
        for name in names
        if name.sample_uuid in accounts
    }
    legacy = read_legacy_checkpoints(connection, nodes, resolved)
    taken_over = {}
    for node, (snapshots, names) in nodes.items():
        left_behind = {account: left for (of, account), left in legacy.items() if of == node}
        if not left_behind:
            continue
        owners = {
            name: accounts[name.sample_uuid] for name in names if name.sample_uuid in accounts
        }
        taken_over[node] = split_checkpoints(snapshots, owners, left_behind)
    return taken_over


def end_of_legacy_writer(watermark: datetime | None) -> datetime | None:
    """Return the last moment that the legacy writer has covered.

    Its watermark may be the end of the window that it asked for. One that is a whole minute is
    taken as the end of the minute before, so that the minute that begins there is not passed
    over as written.
    """
    if watermark is not None and watermark == minute_of(watermark):
        return watermark - timedelta(microseconds=1)
    return watermark
