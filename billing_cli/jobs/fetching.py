"""A round of fetching: from the exporters, or from a file in their place."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

from billing_cli.core.deltas import not_yet_applied
from billing_cli.database.schema import require_head
from billing_cli.database.sources import read_sources
from billing_cli.errors import BillingError
from billing_cli.exporter.api import ExporterError, Fetched, FetchRequest
from billing_cli.jobs.catch_up_window import CatchUpWindow

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from datetime import datetime

    from psycopg import Connection

    from billing_cli.config.source import Source
    from billing_cli.database.connection import Session
    from billing_cli.database.sources import SourceState
    from billing_cli.exporter.claims import Claims
    from billing_cli.exporter.file import SnapshotFile
    from billing_cli.jobs.context import JobContext

    Fetch = Callable[[Sequence[FetchRequest], datetime], Mapping[str, Fetched | ExporterError]]

# How far the legacy writer's clock may be ahead: it may have stored the end of its last window.
FUTURE_TOLERANCE = timedelta(minutes=5)
LEGACY_AHEAD = (
    "the watermark that the legacy writer left is in the future; nothing would be charged until "
    "then: correct last_completed_until in public.billing_source_sync_state"
)

NOT_BEFORE_UNTIL = "the only snapshot that the exporter offers is not before --until"


@dataclass(frozen=True, slots=True)
class FromFile:
    """A file of snapshots in place of the exporters; `path` may be `-`, which is stdin.

    `on_read` is called with the number of bytes read so far.
    """

    path: str
    on_read: Callable[[int], None] | None = None


@dataclass(frozen=True, slots=True)
class Origin:
    """How snapshots are got, and of which sources.

    Of a file, `first_stamps` are the stamps of the first snapshots, by source id, and `notes` name
    the nodes that are left out.
    """

    sources: Sequence[Source]
    fetch: Fetch
    is_file: bool = False
    first_stamps: Mapping[str, datetime] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@contextmanager
def origin_of(
    context: JobContext,
    session: Session,
    sources: Sequence[Source],
    file: FromFile | None,
    *,
    are_named: bool,
) -> Iterator[Origin]:
    """Yield how the snapshots of these sources are got as long as the block lasts.

    From a file they are those of its sources that the file has snapshots of; where they were named,
    all. Raises BillingError for a file that can't be read, and for a node that no source claims.
    """
    if file is None:
        yield Origin(sources, partial(_over_http, context))
        return

    # As late as possible: most runs need none of it.
    from billing_cli.exporter.claims import claimed_nodes  # noqa: PLC0415
    from billing_cli.exporter.file import fetched_from_file, read_file  # noqa: PLC0415

    def read(connection: Connection) -> dict[str, SourceState]:
        require_head(connection)
        return read_sources(connection, [source.source_id for source in context.sources])

    states = session.read(read)
    carried = {name: state.identity for name, state in states.items() if state.identity is not None}
    renamed = {former: now for state in states.values() for former, now in state.renamed().items()}
    try:
        with read_file(
            file.path, now=context.clock(), renamed=renamed, on_progress=file.on_read
        ) as snapshots:
            selected = [source.source_id for source in sources]
            claims = claimed_nodes(snapshots.nodes, context.sources, carried, selected)

            def fetch(
                requests: Sequence[FetchRequest], _: datetime
            ) -> Mapping[str, Fetched | ExporterError]:
                return fetched_from_file(snapshots, requests, claims.nodes)

            yield Origin(
                [source for source in sources if are_named or source.source_id in claims.nodes],
                fetch,
                is_file=True,
                first_stamps=_first_stamps(snapshots, claims),
                notes=claims.notes(),
            )
    except ExporterError as error:
        raise BillingError(error.reason, "file") from None


def ending_at(origin: Origin, end: datetime) -> Origin:
    """Return the origin without the snapshots at or after `end` that `latest` offers."""

    def ended(answer: Fetched | ExporterError) -> Fetched | ExporterError:
        if isinstance(answer, ExporterError) or answer.contract != "latest":
            return answer
        kept = tuple(snapshot for snapshot in answer.snapshots if snapshot.collected_at < end)
        if len(kept) == len(answer.snapshots):
            return answer
        return replace(answer, snapshots=kept, notes=(*answer.notes, NOT_BEFORE_UNTIL))

    def fetch(
        requests: Sequence[FetchRequest], now: datetime
    ) -> Mapping[str, Fetched | ExporterError]:
        answers = origin.fetch(requests, now)
        return {source_id: ended(answer) for source_id, answer in answers.items()}

    return replace(origin, fetch=fetch)


def _first_stamps(snapshots: SnapshotFile, claims: Claims) -> dict[str, datetime]:
    found = {
        source_id: min(filter(None, map(snapshots.first_stamp, nodes)), default=None)
        for source_id, nodes in claims.nodes.items()
    }
    return {source_id: stamp for source_id, stamp in found.items() if stamp is not None}


def _over_http(
    context: JobContext, requests: Sequence[FetchRequest], now: datetime
) -> Mapping[str, Fetched | ExporterError]:
    from billing_cli.exporter.fleet import fetch_all  # noqa: PLC0415 - requests is slow to import

    fetching = context.fetching
    return dict(
        fetch_all(
            requests,
            now=now,
            concurrency=fetching.concurrency,
            deadline_seconds=fetching.deadline_seconds,
            default_token=context.default_token,
        )
    )


@dataclass(frozen=True, slots=True)
class StepRequest:
    """What a step is to do: move `sources`, by their ids, towards `until`.

    `until` is the end of the last closed minute. `since` is where a source begins that has no
    watermark yet. With a `window` all sources come equally far: minutes that another one has yet to
    reach are left to a later step, and so are sources that are further already. Without one, each
    comes as far as its share of the samples allows; `larger_shares` are more than that, in samples.
    """

    sources: Mapping[str, Source]
    until: datetime
    since: datetime | None = None
    window: CatchUpWindow | None = None
    larger_shares: Mapping[str, int] = field(default_factory=dict)
    respect_intervals: bool = False


@dataclass(frozen=True, slots=True)
class FetchRound:
    """What the sources answered for the time before `bound`; `beyond_bound` begin later than that.

    `known` are their states when they were asked, and `begins` where each one was asked from.
    `is_file` means that a file was read, not the exporters.
    """

    begins: Mapping[str, datetime]
    known: Mapping[str, SourceState]
    bound: datetime
    outcomes: Mapping[str, Fetched | ExporterError]
    beyond_bound: frozenset[str]
    is_file: bool

    def nodes(self) -> dict[str, bool]:
        """Return the nodes that answered, and whether a source has snapshots that may be new."""
        nodes: dict[str, bool] = {}
        for source_id, answer in self.outcomes.items():
            if isinstance(answer, Fetched) and answer.identity is not None:
                fresh = not_yet_applied(self.known[source_id].watermark, answer.snapshots)
                node = answer.identity.stored
                nodes[node] = nodes.get(node, False) or bool(fresh)
        return nodes


def fetch_round(
    context: JobContext, origin: Origin, request: StepRequest, states: Mapping[str, SourceState]
) -> FetchRound:
    """Ask the origin for what the requested sources may have new, each from where it stands.

    A source that is in the request's `larger_shares` is asked for at least so many samples.
    """
    window, until = request.window or CatchUpWindow(), request.until
    most_samples = context.fetching.step_max_samples
    ahead = {
        source_id: ExporterError(LEGACY_AHEAD)
        for source_id in request.sources
        if _is_ahead(context, states[source_id])
    }
    begins = {}
    for source_id, source in request.sources.items():
        begin = _begin(context, origin, request, states[source_id])
        if source_id in ahead:
            begins[source_id] = until
        elif begin < until or source.mode != "window":
            begins[source_id] = begin
    bound = window.bound(begins, until, most_samples)
    beyond_bound = {
        source_id for source_id, begin in begins.items() if bound < until and begin >= bound
    } - ahead.keys()
    asked = [
        name for name in request.sources if name in begins.keys() - beyond_bound - ahead.keys()
    ]
    shares = window.shares(asked, most_samples)
    requests = [
        FetchRequest(
            source=request.sources[source_id],
            since=begins[source_id],
            until=max(bound, begins[source_id]),
            max_samples=max(shares[source_id], request.larger_shares.get(source_id, 0)),
            page_limit=context.fetching.page_limit,
            has_watermark=states[source_id].watermark is not None,
            renamed=states[source_id].renamed(),
        )
        for source_id in asked
    ]
    outcomes = {**origin.fetch(requests, context.clock()), **ahead}
    return FetchRound(begins, states, bound, outcomes, frozenset(beyond_bound), origin.is_file)


def _is_ahead(context: JobContext, state: SourceState) -> bool:
    """Return whether a source would go on from a legacy watermark in the future."""
    legacy = state.legacy_watermark if state.watermark is None else None
    return legacy is not None and legacy > context.clock() + FUTURE_TOLERANCE


def _begin(
    context: JobContext, origin: Origin, request: StepRequest, state: SourceState
) -> datetime:
    """Return where a source goes on from, or begins."""
    begin = state.watermark or state.legacy_watermark or request.since
    if begin is not None:
        return begin
    # A file has an end of its own; all of it is wanted.
    lookback = request.until - context.initial_lookback
    return origin.first_stamps.get(state.source_id, lookback)
