"""A round of fetching: from the exporters, or from a file in their place."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from billing_cli.database.schema import require_head
from billing_cli.database.sources import read_sources
from billing_cli.errors import BillingError
from billing_cli.exporter.api import ExporterError, FetchRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from datetime import datetime

    from psycopg import Connection

    from billing_cli.database.connection import Session
    from billing_cli.database.sources import SourceState
    from billing_cli.exporter.api import Fetched
    from billing_cli.exporter.source import Source
    from billing_cli.jobs.catch_up_window import CatchUpWindow
    from billing_cli.jobs.context import JobContext

    Fetch = Callable[[Sequence[FetchRequest], datetime], Mapping[str, Fetched | ExporterError]]


@dataclass(frozen=True, slots=True)
class FromFile:
    """A file of snapshots in place of the exporters; `path` may be `-`, which is stdin.

    `on_read` is called with the number of bytes read so far.
    """

    path: str
    on_read: Callable[[int], None] | None = None


@dataclass(frozen=True, slots=True)
class Origin:
    """How snapshots are got, and of which sources."""

    sources: Sequence[Source]
    fetch: Fetch
    is_file: bool = False


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
    from billing_cli.exporter.file import claimed_nodes, fetched_from_file, read_file  # noqa: PLC0415

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
            claims = claimed_nodes(snapshots.nodes, context.sources, carried)

            def fetch(
                requests: Sequence[FetchRequest], _: datetime
            ) -> Mapping[str, Fetched | ExporterError]:
                return fetched_from_file(
                    snapshots, requests, sources=context.sources, carried=carried
                )

            wanted = [source for source in sources if are_named or source.source_id in claims]
            yield Origin(wanted, fetch, is_file=True)
    except ExporterError as error:
        raise BillingError(error.reason, "file") from None


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
class FetchRound:
    """What the sources answered for the time before `bound`; those in `waiting` are beyond it.

    `known` are their states when they were asked, at `asked_at`, and `begins` where each one was
    asked from. `is_file` means that a file was read, not the exporters, `is_dry` that nothing is
    to be stored.
    """

    begins: Mapping[str, datetime]
    known: Mapping[str, SourceState]
    bound: datetime
    outcomes: Mapping[str, Fetched | ExporterError]
    waiting: frozenset[str]
    asked_at: datetime
    is_file: bool
    is_dry: bool


def fetch_round(
    context: JobContext,
    origin: Origin,
    sources: Sequence[Source],
    states: Mapping[str, SourceState],
    until: datetime,
    since: datetime | None,
    window: CatchUpWindow,
    asked_at: datetime,
    *,
    factors: Mapping[str, int],
    is_dry: bool,
) -> FetchRound:
    """Ask the origin for what the sources may have new, each from where it stands.

    The shares of single sources are multiplied by their `factors`.
    """
    first_since = since or until - context.initial_lookback
    fetching = context.fetching
    begins = {}
    for source in sources:
        state = states[source.source_id]
        begin = state.watermark or state.legacy_watermark or first_since
        if begin < until or source.mode != "window":
            begins[source.source_id] = begin
    bound = window.bound(begins, until, fetching.step_max_samples)
    waiting = frozenset(
        source_id for source_id, begin in begins.items() if bound < until and begin >= bound
    )
    wanted = [source for source in sources if source.source_id in begins.keys() - waiting]
    shares = window.shares((source.source_id for source in wanted), fetching.step_max_samples)
    outcomes = origin.fetch(
        [
            FetchRequest(
                source=source,
                since=begins[source.source_id],
                until=max(bound, begins[source.source_id]),
                max_samples=shares[source.source_id] * factors.get(source.source_id, 1),
                page_limit=fetching.page_limit,
                has_watermark=states[source.source_id].watermark is not None,
                renamed=states[source.source_id].renamed(),
            )
            for source in wanted
        ],
        context.clock(),
    )
    return FetchRound(begins, states, bound, outcomes, waiting, asked_at, origin.is_file, is_dry)
