"""`archive`: writes a month's facts, seals and days to a directory, and reads back what it wrote.

The directory appears whole or not at all: files are written next to it, synced, verified, and then
renamed. A run that was killed leaves a hidden directory, which the next one removes. All of it is
for its owner alone: it holds salts, and the usage of every account.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import file_digest, sha256
from typing import TYPE_CHECKING, Any

from billing_cli.archive_checks import check_archive
from billing_cli.archives import (
    BETWEEN_COLUMNS,
    CHARGE_COLUMNS,
    CHECKPOINT,
    DAY_COLUMNS,
    FACT_KEY,
    MANIFEST,
    SEAL_COLUMNS,
    USAGE_COLUMNS,
    fact_row,
    write_manifest,
    write_parquet,
)
from billing_cli.core.result import RunResult
from billing_cli.database.connection import Session
from billing_cli.database.schema import require_head
from billing_cli.database.seals import CHARGES, RECORDS, read_facts, read_head
from billing_cli.errors import BillingError, ConfigurationError, UsageError
from billing_cli.features.archive import queries as store
from billing_cli.jobs.run_history import record_run

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import date
    from pathlib import Path

    from psycopg import Connection

    from billing_cli.jobs.context import JobContext

JOB = "archive"

# A month of a hundred million facts takes hours.
STATEMENT_TIMEOUT_SECONDS = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class ArchiveResult(RunResult):
    """A run of `archive`: the month, its directory, and how many rows the files have.

    `is_new` is False where the month was archived before and is still what is stored.
    """

    month: str = ""
    directory: str = ""
    records: int = 0
    charges: int = 0
    seals: int = 0
    days: int = 0
    is_new: bool = True

    @property
    def details(self) -> Mapping[str, Any]:
        """What was archived."""
        return {
            "month": self.month,
            "directory": self.directory,
            "records": self.records,
            "charges": self.charges,
            "seals": self.seals,
            "days": self.days,
            "is_new": self.is_new,
        }


def archive(context: JobContext, month: date, to: Path) -> ArchiveResult:
    """Archive a month, which begins at `month`, as a directory in `to`.

    Raises UsageError for a month that is not over, ConfigurationError without pyarrow or where the
    directory holds something else, BillingError where facts are not in the signed log yet, where
    what was written is not what was sealed, and where files or database fail.
    """
    started_at = context.clock()
    start = datetime(month.year, month.month, 1, tzinfo=UTC)
    end = datetime(month.year + month.month // 12, month.month % 12 + 1, 1, tzinfo=UTC)
    if end > started_at:
        raise UsageError(f"the month {start:%Y-%m} is not over")
    _require_pyarrow()
    name = f"{start:%Y-%m}"
    target, partial = to / name, to / f".{name}.partial"
    patient = replace(context.database, statement_timeout_seconds=STATEMENT_TIMEOUT_SECONDS)
    with Session(patient) as session, _files(to):
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        facts_sha256 = session.read_one_state(
            lambda connection: _write(connection, partial, start, end)
        )
        check = check_archive(partial, ())
        if check.problems:
            raise BillingError(
                f"the files in {partial} do not prove themselves, `billing verify` shows details: "
                + "; ".join(check.problems[:3])
            )
        is_new = _publish(partial, target)
        result = ArchiveResult(
            job=JOB,
            run_id=context.run_id,
            status="ok",
            started_at=started_at,
            finished_at=context.clock(),
            month=name,
            directory=str(target.absolute()),
            records=check.records,
            charges=check.charges,
            seals=check.seals,
            days=check.days,
            is_new=is_new,
        )
        session.transaction(
            lambda connection: _note(context, connection, result, start, facts_sha256)
        )
    return result


def _require_pyarrow() -> None:
    try:
        import pyarrow as pa  # noqa: PLC0415
    except ImportError:
        raise ConfigurationError(
            "the package pyarrow is missing: pip install 'billing[archive]'"
        ) from None
    del pa


@contextmanager
def _files(to: Path) -> Iterator[None]:
    """Keep other archives and other users out of the directory; say which file failed.

    Raises BillingError.
    """
    umask = os.umask(0o077)
    try:
        to.mkdir(parents=True, exist_ok=True)
        with (to / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
    except BlockingIOError:
        raise BillingError(f"{to}: another archive is being written") from None
    except OSError as error:
        raise BillingError(f"{error.filename or to}: {error.strerror}") from None
    finally:
        os.umask(umask)


def _write(connection: Connection, partial: Path, start: datetime, end: datetime) -> bytes:
    """Write all files; return the hash of the month's facts, by which `prune` knows them."""
    require_head(connection)
    bounds = store.bounds_of(connection, start, end)
    found = store.read_month(connection, bounds)
    head = read_head(connection)
    if found.waiting:
        raise BillingError(
            f"{found.waiting} seals of the month are not in the log yet: run `billing seal` first"
        )
    if head.note is None:
        raise BillingError("nothing is sealed yet: run `billing seal` first")
    bounds |= {"first": found.first, "last": found.last}
    counts: dict[str, int] = {}
    digest = sha256()

    def hashed(line: bytes) -> bytes:
        digest.update(line)
        return line

    for table, columns, name in (
        (RECORDS, USAGE_COLUMNS, "usage_records"),
        (CHARGES, CHARGE_COLUMNS, "charges"),
    ):
        for prefix, lines in (
            ("", map(hashed, read_facts(connection, table, start, end))),
            ("other_", store.read_other_facts(connection, table, bounds)),
        ):
            counts[prefix + name] = write_parquet(
                partial / f"{prefix}{name}.parquet",
                FACT_KEY | columns,
                (fact_row(line, columns) for line in lines),
            )
    seals = store.read_seals(connection, bounds)
    counts["seals"] = write_parquet(partial / "seals.parquet", SEAL_COLUMNS, seals)
    numbers = {row[-1] for row in seals}

    def days() -> Iterator[tuple[Any, ...]]:
        for row in store.read_days(connection, start, end):
            numbers.add(row[4])
            yield row

    counts["days"] = write_parquet(partial / "days.parquet", DAY_COLUMNS, days())
    between = store.read_between(connection, sorted(numbers), head.tree_size)
    write_parquet(
        partial / "between.parquet",
        BETWEEN_COLUMNS,
        ((leaf_range.start, leaf_range.end, root) for leaf_range, root in between),
    )
    (partial / CHECKPOINT).write_text(head.note)
    write_manifest(partial, f"{start:%Y-%m}", counts)
    for path in partial.iterdir():
        _sync(path)
    _sync(partial)
    return digest.digest()


def _publish(partial: Path, target: Path) -> bool:
    """Give the directory its name; return whether that is new.

    A newer checkpoint alone makes no new archive. Raises BillingError where other facts or days are
    there: nothing is replaced.
    """
    if target.exists():

        def is_same(name: str) -> bool:
            return _digest(target / name) == _digest(partial / name)

        facts = ("usage_records.parquet", "charges.parquet", "seals.parquet")
        if not (target / MANIFEST).is_file() or not all(map(is_same, facts)):
            raise BillingError(
                f"{target} holds other facts, as before late minutes came in: archive to another "
                "directory, or move it away"
            )
        check = check_archive(target, ())
        if check.problems:
            raise BillingError(f"{target} was damaged, move it away: {check.problems[0]}")
        if not is_same("days.parquet"):
            raise BillingError(
                f"{target} lacks days that were sealed since: move it away, and archive again"
            )
        shutil.rmtree(partial)
        return False
    partial.rename(target)
    _sync(target.parent)
    return True


def _digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return file_digest(file, "sha256").digest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _note(
    context: JobContext,
    connection: Connection,
    result: ArchiveResult,
    month: datetime,
    facts_sha256: bytes,
) -> None:
    """Note what is archived, so that it may be pruned."""
    connection.execute(
        store.SAVE_ARCHIVE,
        {
            "month": month,
            "run_id": context.run_id,
            "archived_at": context.clock(),
            "directory": result.directory,
            "records": result.records,
            "charges": result.charges,
            "seals": result.seals,
            "facts_sha256": facts_sha256,
        },
    )
    record_run(context, connection, result)
