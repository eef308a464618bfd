"""Checks of the evidence: each stream's records telescope up to its checkpoint (I3, I4)."""

from __future__ import annotations

from itertools import groupby
from operator import or_
from typing import TYPE_CHECKING, Any, NamedTuple

from billing_cli.core.model import Totals
from billing_cli.core.times import format_rfc3339
from billing_cli.simulator.books import rows

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime

    from psycopg import Connection

READ_STREAMS = """
SELECT stream_id, origin, state, reset_epoch,
       first_uplink_total, first_downlink_total, uplink_total, downlink_total
  FROM billing.streams
"""

# Whatever a stream moved is in exactly one of three places: billed, held, or waiting for its
# account. What was released is billed as well, but its place in the chain is that of the held
# delta; corrections say where bytes belong and are no links.
READ_LINKS = """
SELECT stream_id, reset_epoch, from_at, to_at,
       uplink_start, downlink_start, uplink_end, downlink_end, 'record' AS place,
       false AS is_duplicate, false AS is_rejected
  FROM billing.usage_records
 WHERE revision = 0 AND kind IN ('delta', 'pending')
UNION ALL
SELECT stream_id, reset_epoch, from_at, to_at,
       uplink_start, downlink_start, uplink_end, downlink_end, 'held delta',
       held_reason = 'duplicate', state = 'rejected'
  FROM billing.held_deltas
UNION ALL
SELECT stream_id, reset_epoch, from_at, to_at,
       uplink_start, downlink_start, uplink_end, downlink_end, 'pending usage',
       false, false
  FROM billing.pending_usage
 WHERE billed_at IS NULL
 ORDER BY stream_id, reset_epoch, from_at, to_at, uplink_start, downlink_start
"""

# What streams handed over to others, and took over from them or from before a revoked restart.
# A node that was given another id hands over what was charged up to that moment.
READ_MOVES = """
SELECT stream_id,
       CASE WHEN side = 'ended' AND stream.stored_node_id <> succession.stored_node_id
            THEN at + interval '1 microsecond' ELSE at END AS at,
       side, part.uplink_total, part.downlink_total
  FROM billing.succession_streams AS part
  JOIN billing.successions AS succession USING (succession_id)
  JOIN billing.streams AS stream USING (stream_id)
 WHERE side = 'continued' OR kind = 'renamed'
 ORDER BY 1, 2
"""

# A held delta and its record of release are two sides of one decision.
RELEASES_WITHOUT_COUNTERPART = """
SELECT coalesce(held.stream_id, record.stream_id), held.state
  FROM (SELECT * FROM billing.held_deltas WHERE state = 'released') AS held
  FULL JOIN (SELECT * FROM billing.usage_records WHERE kind = 'released') AS record
    ON (held.stream_id, held.reset_epoch, held.uplink_start, held.uplink_end,
        held.downlink_start, held.downlink_end)
     = (record.stream_id, record.reset_epoch, record.uplink_start, record.uplink_end,
        record.downlink_start, record.downlink_end)
 WHERE held.stream_id IS NULL OR record.stream_id IS NULL
"""

# The shared checkpoint is the sum over an account's streams; an account without a row has
# nothing but streams that never moved.
# A checkpoint waits with the usage of an account that could not be charged, as of a locked one, and
# is stale where there was none.
CHECKPOINTS_THAT_DIFFER = """
SELECT stored_node_id, account_uuid::text,
       coalesce(shared.uplink, 0), coalesce(shared.downlink, 0),
       coalesce(ours.uplink, 0), coalesce(ours.downlink, 0)
  FROM (SELECT stored_node_id, account_uuid,
               sum(uplink_total)::bigint AS uplink, sum(downlink_total)::bigint AS downlink
          FROM billing.streams
          JOIN public.users ON users.uuid = streams.account_uuid
         WHERE state = 'active'
         GROUP BY stored_node_id, account_uuid) AS ours
  LEFT JOIN (SELECT node_id AS stored_node_id, account_uuid,
                    last_uplink_total AS uplink, last_downlink_total AS downlink
               FROM public.traffic_stat_checkpoints) AS shared
 USING (stored_node_id, account_uuid)
 WHERE (coalesce(shared.uplink, 0), coalesce(shared.downlink, 0))
    <> (coalesce(ours.uplink, 0), coalesce(ours.downlink, 0))
   AND NOT EXISTS (SELECT FROM billing.streams AS stream
                     JOIN billing.pending_usage AS pending USING (stream_id)
                    WHERE stream.account_uuid = ours.account_uuid
                      AND stream.stored_node_id = ours.stored_node_id
                      AND pending.billed_at IS NULL)
   AND NOT EXISTS (SELECT FROM billing.stale_checkpoints AS stale
                    WHERE stale.account_uuid = ours.account_uuid
                      AND stale.stored_node_id = ours.stored_node_id AND stale.is_stale)
"""

SYNC_STATES_THAT_DIFFER = """
SELECT source_id, source.watermark, shared.last_completed_until
  FROM billing.sources AS source
  LEFT JOIN public.billing_source_sync_state AS shared USING (source_id)
 WHERE source.watermark IS NOT NULL
   AND source.watermark IS DISTINCT FROM shared.last_completed_until
"""

READ_WATERMARKS = """
SELECT source_id, watermark FROM billing.sources WHERE watermark IS NOT NULL
"""

ZERO = Totals(0, 0)


class StreamRow(NamedTuple):
    """A stream's first totals and its checkpoint."""

    stream_id: int
    origin: str
    state: str
    reset_epoch: int
    first: Totals
    last: Totals


class Link(NamedTuple):
    """What a stream moved between two totals of one epoch."""

    stream_id: int
    reset_epoch: int
    from_at: datetime
    to_at: datetime
    start: Totals
    end: Totals
    place: str
    is_duplicate: bool
    is_rejected: bool


class Move(NamedTuple):
    """What a stream handed over (`ended`) or took over (`continued`) at an instant."""

    stream_id: int
    at: datetime
    side: str
    totals: Totals


def evidence_violations(connection: Connection[Any]) -> list[str]:
    """Return where evidence, checkpoints and watermarks contradict each other."""
    return [*_chains(connection), *_releases(connection), *_shared_progress(connection)]


def read_watermarks(connection: Connection[Any]) -> dict[str, datetime]:
    """Return each source's watermark."""
    return dict(rows(connection, READ_WATERMARKS))


def moved_back(connection: Connection[Any], earlier: Mapping[str, datetime]) -> list[str]:
    """Return the sources whose watermark is behind what `read_watermarks` found earlier."""
    now = read_watermarks(connection)
    return [
        f"source {source_id}: watermark {now.get(source_id)} is behind {watermark}"
        for source_id, watermark in sorted(earlier.items())
        if source_id not in now or now[source_id] < watermark
    ]


def _chains(connection: Connection[Any]) -> Iterator[str]:
    links = [
        Link(stream_id, epoch, from_at, to_at, Totals(up, down), Totals(up_end, down_end), *kind)
        for stream_id, epoch, from_at, to_at, up, down, up_end, down_end, *kind in rows(
            connection, READ_LINKS
        )
    ]
    chains = {stream: list(group) for stream, group in groupby(links, lambda link: link.stream_id)}
    moves = [
        Move(stream_id, at, side, Totals(*totals))
        for stream_id, at, side, *totals in rows(connection, READ_MOVES)
    ]
    moved = {stream: list(group) for stream, group in groupby(moves, lambda move: move.stream_id)}
    for stream_id, origin, state, epoch, *totals in rows(connection, READ_STREAMS):
        first, last = Totals(*totals[:2]), Totals(*totals[2:])
        stream = StreamRow(stream_id, origin, state, epoch, first, last)
        for problem in _chain(stream, chains.pop(stream_id, []), moved.get(stream_id, [])):
            yield f"stream {stream_id}: {problem}"
    for stream_id in chains:
        yield f"stream {stream_id}: has evidence and no row"


def _chain(stream: StreamRow, links: Sequence[Link], moves: Sequence[Move]) -> Iterator[str]:
    """Walk the links: each starts where the last ended, or at 0 in a new epoch.

    To that is added what the stream took over since, and taken away what it handed over. A
    duplicate goes on from its own totals; what follows a rejected one is ignored.
    """
    end, epoch, to_at = (ZERO if stream.origin == "new" else stream.first), 0, None
    for link in links:
        since = [
            move for move in moves if (to_at is None or move.at > to_at) and move.at <= link.to_at
        ]
        places = _places(end, since, link.from_at, is_reset=link.reset_epoch > epoch)
        name = f"{link.place} from {format_rfc3339(link.from_at)}"
        goes_on = link.is_duplicate and link.start == _plus(end, since, "continued")
        if not goes_on and not places.hold(link.start):
            yield f"{name} starts at {_said(link.start)}, not at {_said(places.likeliest)}"
        if to_at is not None and link.from_at < to_at:
            yield f"{name} begins before {format_rfc3339(to_at)}, where the last one ended"
        if link.to_at < link.from_at:
            yield f"{name} ends before it begins"
        end, epoch, to_at = link.end, link.reset_epoch, link.to_at
        if link.is_duplicate and link.is_rejected:
            return
    since = [move for move in moves if to_at is None or move.at > to_at]
    if epoch > stream.reset_epoch:
        yield f"evidence of epoch {epoch}, checkpoint of epoch {stream.reset_epoch}"
    if stream.state != "ignored":
        yield from _end(stream, end, since, is_reset=stream.reset_epoch > epoch)


def _end(stream: StreamRow, end: Totals, since: Sequence[Move], *, is_reset: bool) -> Iterator[str]:
    """Compare the end of the links with the checkpoint; a continued stream kept its last totals."""
    places = _places(end, since, None, is_reset=is_reset)
    is_there = places.hold(stream.last)
    if stream.state == "duplicate":
        is_there |= stream.last == _plus(end, since, "continued")
    if stream.state == "continued":
        given = [part.totals for part in since if part.side == "ended"]
        is_there = given[-1:] == [stream.last] and places.hold(ZERO)
    if not is_there:
        yield f"evidence ends at {_said(places.likeliest)}, checkpoint at {_said(stream.last)}"


class Places(NamedTuple):
    """Where a stream may stand: `there`, or with a new epoch one of `from_zero` by direction."""

    there: Totals
    from_zero: tuple[Totals, ...] = ()

    @property
    def likeliest(self) -> Totals:
        """What it should be, as a rule."""
        return self.from_zero[0] if self.from_zero else self.there

    def hold(self, totals: Totals) -> bool:
        """Return whether totals are allowed: one counter of a pair may restart alone."""
        if not self.from_zero:
            return totals == self.there
        restarted = [
            now in {allowed[direction] for allowed in self.from_zero}
            for direction, now in enumerate(totals)
        ]
        stayed = [now == there for now, there in zip(totals, self.there, strict=True)]
        return any(restarted) and all(map(or_, restarted, stayed))


def _places(
    end: Totals, since: Sequence[Move], from_at: datetime | None, *, is_reset: bool
) -> Places:
    """Return where a stream may stand that stood at `end` before the moves."""
    there = _plus(_plus(end, since, "continued"), since, "ended", -1)
    if not is_reset:
        return Places(there)
    late = [part for part in since if from_at is None or part.at > from_at]
    taken = [_plus(ZERO, late, "continued"), _plus(ZERO, since, "continued")]
    return Places(there, (*taken, ZERO, _plus(taken[-1], since, "ended", -1)))


def _plus(totals: Totals, moves: Sequence[Move], side: str, sign: int = 1) -> Totals:
    parts = [move.totals for move in moves if move.side == side]
    return Totals(
        totals.uplink + sign * sum(part.uplink for part in parts),
        totals.downlink + sign * sum(part.downlink for part in parts),
    )


def _releases(connection: Connection[Any]) -> Iterator[str]:
    for stream_id, state in rows(connection, RELEASES_WITHOUT_COUNTERPART):
        missing = "record" if state else "released held delta"
        yield f"stream {stream_id}: a release without its {missing}"


def _shared_progress(connection: Connection[Any]) -> Iterator[str]:
    for node, account, *totals in rows(connection, CHECKPOINTS_THAT_DIFFER):
        shared, ours = Totals(*totals[:2]), Totals(*totals[2:])
        yield f"checkpoint {node} {account}: {_said(shared)}, streams sum to {_said(ours)}"
    for source_id, watermark, shared_watermark in rows(connection, SYNC_STATES_THAT_DIFFER):
        yield f"source {source_id}: watermark {watermark}, sync state {shared_watermark}"


def _said(totals: Totals) -> str:
    return f"{totals.uplink} up / {totals.downlink} down"
