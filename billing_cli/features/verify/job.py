"""`verify`: reads everything in one state of the database, writes nothing, and locks nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from billing_cli.core.times import format_rfc3339
from billing_cli.database.connection import Session
from billing_cli.database.schema import require_head
from billing_cli.database.seals import read_last_prune
from billing_cli.features.verify import queries as store
from billing_cli.features.verify.days import check_days
from billing_cli.features.verify.facts import FIRST, check_facts
from billing_cli.features.verify.log import KeptCheckpoint, check_log
from billing_cli.features.verify.result import VerifyReport
from billing_cli.signatures import read_checkpoints, read_public_keys

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime
    from pathlib import Path

    from psycopg import Connection

    from billing_cli.core.seals import Seal
    from billing_cli.jobs.context import JobContext

# Nothing waits for it, and ten million facts take it a minute.
STATEMENT_TIMEOUT_SECONDS = 3600.0


def verify(
    context: JobContext,
    *,
    since: datetime | None = None,
    checkpoint_files: Sequence[Path] = (),
    key_files: Sequence[Path] = (),
    on_facts: Callable[[int, int], None] | None = None,
) -> VerifyReport:
    """Compare facts with seals, seals with the log, and the log with kept checkpoints.

    With `since` the facts of the minutes that runs since then have written, and days sealed since
    then; the log always as a whole. `on_facts` is called with the number of facts read just now,
    and that of all. Raises ConfigurationError where a file can't be used, BillingError where the
    database can't be read.
    """
    kept = [
        KeptCheckpoint(path, signed)
        for path in checkpoint_files
        for signed in read_checkpoints(path)
    ]
    keys = read_public_keys(key_files)
    patient = replace(context.database, statement_timeout_seconds=STATEMENT_TIMEOUT_SECONDS)

    def work(connection: Connection) -> VerifyReport:
        require_head(connection)
        report = VerifyReport()
        check_log(connection, kept, keys, report)
        prune = read_last_prune(connection)
        if prune is not None:
            _note_prune(connection, prune, report)
        scan_start = _scan_start(connection, since, report)
        if scan_start is not None:
            start, total = scan_start
            check_facts(
                connection, start, prune, report, lambda count: on_facts and on_facts(count, total)
            )
        check_days(connection, since, prune, report)
        return report

    with Session(patient) as session:
        return session.read_one_state(work)


def _note_prune(connection: Connection, prune: Seal, report: VerifyReport) -> None:
    """Note what is gone by the last prune; where there is a log, it has to say so.

    Else whoever may write seals could say that facts were pruned.
    """
    report.pruned_before = prune.first_bucket
    row = connection.execute(store.READ_PRUNED, prune._asdict()).fetchone()
    report.pruned, is_in_log = row or (0, None)
    if report.leaves and not is_in_log:
        before = format_rfc3339(prune.first_bucket)
        detail = f"facts before {before}, and the log does not say so yet: run `billing seal`"
        report.add("deleted", "billing.seals", detail, prune.run_id)


def _scan_start(
    connection: Connection, since: datetime | None, report: VerifyReport
) -> tuple[datetime, int] | None:
    """Return the first minute whose facts are verified, and how many facts there are; or None.

    Minutes before a prune are read as well: facts that came in late have a seal of their own, and
    others must be gone.
    """
    start = FIRST[0]
    if since is not None:
        row = connection.execute(store.READ_SCAN_START, {"since": since}).fetchone()
        if row is None or row[0] is None:
            return None
        start = row[0]
    kept_since = max(start, report.pruned_before or start)
    row = connection.execute(store.READ_COUNTS, {"scan_start": kept_since}).fetchone()
    report.waiting, total = row or (0, 0)
    return start, total
