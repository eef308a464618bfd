"""Where a run's snapshots come from: the exporters, or a file in their place."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from billing_cli.database.schema import require_head
from billing_cli.database.sources import read_sources
from billing_cli.errors import BillingError
from billing_cli.exporter.api import ExporterError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from datetime import datetime

    from psycopg import Connection

    from billing_cli.database.connection import Session
    from billing_cli.database.sources import SourceState
    from billing_cli.exporter.api import Fetched, FetchRequest
    from billing_cli.exporter.source import Source
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
    carried = {name: one.identity for name, one in states.items() if one.identity is not None}
    renamed = {former: now for one in states.values() for former, now in one.renamed().items()}
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

            wanted = [one for one in sources if are_named or one.source_id in claims]
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
