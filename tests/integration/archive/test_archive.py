"""A month as Parquet files: they prove themselves, and nothing is pruned without them."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from billing_cli import archives
from billing_cli.database.connecting import Database
from billing_cli.errors import BillingError, UsageError
from billing_cli.features.archive import job as archive_job
from billing_cli.features.archive.job import archive
from billing_cli.features.audit.job import audit
from billing_cli.features.prune.job import prune
from billing_cli.features.reverse.job import Order, reverse
from billing_cli.features.statement.job import statement
from billing_cli.features.verify.archive import archive_findings, verify_archive
from tests.integration.archive import plain_archives
from tests.support.sealing import DAY, tamper
from tests.support.story import MINUTE, unexplained

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.sealing import Sealing


APRIL = date(2026, 4, 1)
MAY = datetime(2026, 5, 1, tzinfo=UTC)
JUNE = datetime(2026, 6, 15, tzinfo=UTC)


def _context(sealing: Sealing, url: str | None = None) -> Any:
    context = replace(sealing.story.context(), clock=lambda: JUNE)
    return replace(context, database=Database(url)) if url else context


def _archive(sealing: Sealing, to: Path) -> Any:
    return archive(_context(sealing), APRIL, to)


def test_an_archive_proves_itself_without_a_database(sealing: Sealing, tmp_path: Path) -> None:
    """All facts, seals and sealed days of the month, and the signed checkpoint."""
    result = _archive(sealing, tmp_path / "to")
    (check,) = verify_archive(tmp_path / "to", [sealing.key_file])

    assert check.problems == []
    assert plain_archives.verify(tmp_path / "to" / "2026-04") == "2026-04"
    facts = sealing.story.rows("SELECT count(*) FROM billing.usage_records")[0][0]
    assert (check.records, check.charges, check.seals, check.days) == (facts, facts, 6, 2)
    assert (result.records, result.is_new) == (facts, True)


def test_the_command_says_in_one_line_what_it_archived(sealing: Sealing, tmp_path: Path) -> None:
    """Counts with their nouns, and where the files are."""
    done = sealing.story.billing(
        "archive", "--month", f"{APRIL:%Y-%m}", "--to", str(tmp_path / "to"),
        DATABASE_URL=sealing.seal_url,
    )  # fmt: skip
    (line,) = done.stdout.splitlines()
    assert line.startswith(f"archive: {APRIL:%Y-%m} archived - 12 usage records, 12 charges, ")
    assert line.endswith(f" in {tmp_path}/to/{APRIL:%Y-%m}")


def test_an_archive_is_for_its_owner_alone(sealing: Sealing, tmp_path: Path) -> None:
    """Whatever the umask is: it holds salts. Directories that were there keep their modes."""
    (tmp_path / "shared").mkdir(mode=0o755)
    umask = os.umask(0o022)
    try:
        for to in (tmp_path / "new" / "to", tmp_path / "shared"):
            _archive(sealing, to)
        assert os.umask(0o022) == 0o022
    finally:
        os.umask(umask)

    modes = {path.stat().st_mode & 0o777 for path in (tmp_path / "new").rglob("*")}
    assert modes == {0o700, 0o600}
    found = (tmp_path / "shared").stat().st_mode, (tmp_path / "shared" / "2026-04").stat().st_mode
    assert [mode & 0o777 for mode in found] == [0o755, 0o700]
    assert (tmp_path / "new" / "to" / "2026-04" / "days.parquet").stat().st_mode & 0o777 == 0o600


def test_archiving_again_changes_nothing(sealing: Sealing, tmp_path: Path) -> None:
    """The month is compared with what is there."""
    _archive(sealing, tmp_path / "to")

    assert not _archive(sealing, tmp_path / "to").is_new


def test_an_archive_made_before_its_last_day_was_sealed_is_not_kept(
    sealing: Sealing, tmp_path: Path
) -> None:
    """Once the day is sealed, archiving again says that it is missing there."""
    node = next(iter(sealing.story.fleet.nodes.values()))
    sealing.story.minute((node.streams[0], 1, 1))
    sealing.story.collect()
    sealing.seal(2 * DAY)
    early = _archive(sealing, tmp_path / "to")
    sealing.seal(3 * DAY)

    with pytest.raises(BillingError, match="lacks days that were sealed since: move it away"):
        _archive(sealing, tmp_path / "to")
    (tmp_path / "to" / "2026-04").rename(tmp_path / "early")
    again = _archive(sealing, tmp_path / "to")
    assert (again.is_new, again.days) == (True, early.days + 1)


@pytest.mark.parametrize(
    ("table", "column"),
    [
        ("usage_records", "downlink_end"),
        ("charges", "amount_delta"),
        ("charges", "reason"),
        ("seals", "records_sha256"),
        ("seals", "created_at"),
        ("days", "salt"),
    ],
)
def test_a_changed_value_is_found(
    sealing: Sealing, tmp_path: Path, table: str, column: str
) -> None:
    """Also by whoever makes the manifest anew."""
    _archive(sealing, tmp_path / "to")
    month = tmp_path / "to" / "2026-04"
    path = month / f"{table}.parquet"
    rows = [dict(row) for row in parquet.read_table(path).to_pylist()]
    value = rows[0][column]
    changed: Any = b"\0" * 32 if isinstance(value, bytes) else f"{value}x"
    if isinstance(value, int | Decimal):
        changed = value + 1
    if isinstance(value, datetime):
        changed = value.replace(microsecond=1)
    rows[0][column] = changed
    schema = parquet.read_schema(path)
    parquet.write_table(pa.Table.from_pylist(rows, schema=schema), path)
    assert verify_archive(month, [sealing.key_file])[0].problems
    counts = {"usage_records": 12, "charges": 12, "seals": 6}
    archives.write_manifest(month, "2026-04", counts)

    assert archive_findings(verify_archive(month, [sealing.key_file]))


def test_a_run_that_is_cut_leaves_no_archive(
    sealing: Sealing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever file it had come to; the next run starts anew."""
    names = [*archives.TABLES, "manifest", "rename", "note"]
    for number in range(len(names) + 1):
        to = tmp_path / f"to-{number}"
        with monkeypatch.context() as patch:
            _cut_after(patch, number)
            with pytest.raises(KeyboardInterrupt):
                _archive(sealing, to)
        is_published = (to / "2026-04").exists()
        assert is_published == (number > len(archives.TABLES) + 1)
        if is_published:
            assert verify_archive(to, [sealing.key_file])[0].problems == []
        _archive(sealing, to)
        assert [path.name for path in sorted(to.iterdir())] == [".lock", "2026-04"]
        shutil.rmtree(to)


def _cut_after(patch: pytest.MonkeyPatch, number: int) -> None:
    """Interrupt the run before its step with this number: files, manifest, rename, note."""
    left = [number]

    def cut(module: Any, name: str) -> None:
        real = getattr(module, name)

        def step(*arguments: Any, **options: Any) -> Any:
            if left[0] == 0:
                raise KeyboardInterrupt
            left[0] -= 1
            return real(*arguments, **options)

        patch.setattr(module, name, step)

    for name in ("write_parquet", "write_manifest", "_publish", "_note", "_after"):
        if hasattr(archive_job, name):
            cut(archive_job, name)
    if number > len(archives.TABLES) + 2:
        real_note = archive_job._note

        def note(*arguments: Any) -> None:
            real_note(*arguments)
            raise KeyboardInterrupt

        patch.setattr(archive_job, "_note", note)


def test_facts_that_are_not_sealed_are_not_archived(sealing: Sealing, tmp_path: Path) -> None:
    """What could still be replaced proves nothing."""
    node = next(iter(sealing.story.fleet.nodes.values()))
    sealing.story.minute((node.streams[0], 1, 1))
    sealing.story.collect()

    with pytest.raises(BillingError, match="billing seal"):
        _archive(sealing, tmp_path / "to")
    with pytest.raises(UsageError, match="not over"):
        archive(sealing.story.context(), APRIL, tmp_path / "to")


def test_only_what_is_archived_is_pruned(
    sealing: Sealing, tmp_path: Path, database_url: str
) -> None:
    """Afterwards days are still proven, and the log verifies."""
    sealing.story.broken_invariants = list  # type: ignore[method-assign]
    context = _context(sealing, database_url)
    with pytest.raises(BillingError, match="archived"):
        prune(context, 1, is_unproven_meant=True)
    _archive(sealing, tmp_path / "to")
    result = prune(context, 1, is_unproven_meant=True, is_dropping=True)

    assert [f"{month.month:%Y-%m}" for month in result.months if month.records] == ["2026-04"]
    ((kind, _, _, _, detail),) = sealing.findings()
    assert kind == "deleted"
    assert detail.startswith("facts before 2026-05-01T00:00:00Z, and the log does not say so yet")
    sealing.seal(2 * DAY)
    assert sealing.findings() == []
    assert verify_archive(tmp_path / "to", [sealing.key_file])[0].problems == []


def test_a_month_that_changed_since_is_not_pruned(
    sealing: Sealing, tmp_path: Path, database_url: str
) -> None:
    """Unless that is meant, which the result notes."""
    _archive(sealing, tmp_path / "to")
    sealing.story.broken_invariants = list  # type: ignore[method-assign]
    node = next(iter(sealing.story.fleet.nodes.values()))
    sealing.story.minute((node.streams[0], 1, 1))
    sealing.story.collect()
    for later in (2 * DAY, 3 * DAY):
        sealing.seal(later)
    context = _context(sealing, database_url)

    with pytest.raises(BillingError, match="not archived as it is"):
        prune(context, 1, is_unproven_meant=True)
    waived = prune(context, 1, is_unproven_meant=True, is_archive_waived=True)
    assert waived.details["without_archive"] is True


def test_charges_stay_until_the_day_on_which_they_were_booked_is_sealed(
    sealing: Sealing, tmp_path: Path, database_url: str
) -> None:
    """Otherwise the leaf of the day would prove a statement that lacks them."""
    story = sealing.story
    story.broken_invariants = list  # type: ignore[method-assign]
    back = Order("jp-1", story.now - MINUTE, story.now, None, "money back")
    reversed_at = replace(story.context(), job="reverse")
    assert reverse(reversed_at, back).corrections
    may = datetime(2026, 5, 31, 8, tzinfo=UTC) - story.now
    sealing.seal(may)
    _archive(sealing, tmp_path / "to")
    context = _context(sealing, database_url)
    for dry_run in (True, False):
        with pytest.raises(BillingError, match="not sealed yet: run `billing seal` after midnight"):
            prune(context, 1, is_unproven_meant=True, is_archive_waived=True, dry_run=dry_run)
    sealing.seal(may + DAY)
    ((account,),) = story.rows("SELECT max(account_uuid::text) FROM billing.charges")
    assert Decimal(statement(context, account, MAY.date())["amount"]) > 0
    assert prune(context, 1, is_unproven_meant=True).months
    with pytest.raises(UsageError, match="booked on 2026-05-31 are not there"):
        statement(context, account, MAY.date())


@pytest.mark.parametrize("is_dropping", [False, True], ids=["detached", "dropped"])
def test_late_minutes_of_a_pruned_month_go_only_into_an_archive_of_their_own(
    sealing: Sealing, tmp_path: Path, database_url: str, *, is_dropping: bool
) -> None:
    """Both archives prove themselves, and hold every fact once; log and audit go on."""
    sealing.story.broken_invariants = list  # type: ignore[method-assign]
    context = _context(sealing, database_url)
    before = _archive(sealing, tmp_path / "to")
    prune(context, 1, is_unproven_meant=True, is_dropping=is_dropping)
    node = next(iter(sealing.story.fleet.nodes.values()))
    for _ in range(3):
        sealing.story.minute(*((stream, 10, 20) for stream in node.streams))
    sealing.story.collect()
    for later in (2 * DAY, 3 * DAY):
        sealing.seal(later)
    count = "SELECT (SELECT count(*) FROM billing.usage_records), count(*) FROM billing.charges"
    ((records, charges),) = sealing.story.rows(count)

    with pytest.raises(BillingError, match="2026-04 is not archived as it is"):
        prune(context, 1, is_unproven_meant=True)
    with pytest.raises(BillingError, match="holds other facts"):
        _archive(sealing, tmp_path / "to")
    late = _archive(sealing, tmp_path / "late")
    assert (late.records, late.charges, late.seals) == (records, charges, 1)
    assert records > 0
    prune(context, 1, is_unproven_meant=True)

    assert sealing.story.rows(count) == [(0, 0)]
    for to, made in (("to", before), ("late", late)):
        (check,) = verify_archive(tmp_path / to, [sealing.key_file])
        assert (check.problems, check.records) == ([], made.records)
    sealing.seal(4 * DAY)
    assert sealing.findings() == []
    assert audit(context).violations == 0


def test_what_a_prune_leaves_of_a_run_is_proven(
    sealing: Sealing, tmp_path: Path, database_url: str
) -> None:
    """Of a run that reaches into the next month; that month is archived and pruned in its turn."""
    sealing.story.broken_invariants = list  # type: ignore[method-assign]
    _collect_over_the_end(sealing, datetime(2026, 4, 30, 23, 56, tzinfo=UTC))
    _collect_over_the_end(sealing, datetime(2026, 5, 31, 23, 56, tzinfo=UTC))
    to = tmp_path / "to"
    _archive(sealing, to)
    prune(_context(sealing, database_url), 1, is_unproven_meant=True, is_dropping=True)
    report = sealing.verify()
    assert (unexplained(report), report.waiting, report.pruned_before) == ([], 1, MAY)

    change = "UPDATE billing.charges SET amount_delta = amount_delta {} 1 WHERE bucket_start = "
    change += "(SELECT min(bucket_start) FROM billing.charges WHERE bucket_start >= '2026-05-01')"
    tamper(database_url, change.format("+"))
    assert {(one.kind, one.table) for one in unexplained(sealing.verify())} == {
        ("changed", "billing.charges")
    }
    tamper(database_url, change.format("-"))
    sealing.seal(2 * DAY)
    may = archive(_context(sealing), MAY.date(), to)
    assert may.seals == 3
    # The specification says of prunes within an archive all that another verifier needs.
    assert [plain_archives.verify(month) for month in sorted(to.glob("2*"))] == [
        "2026-04",
        "2026-05",
    ]
    jobs = [seal["job"] for seal in plain_archives.rows(to / "2026-05", "seals")]
    assert jobs.count("prune") == 1
    july = replace(_context(sealing, database_url), clock=lambda: datetime(2026, 7, 2, tzinfo=UTC))
    result = prune(july, 1, is_unproven_meant=True)
    assert [f"{month.month:%Y-%m}" for month in result.months if month.records] == ["2026-05"]
    sealing.seal(3 * DAY)
    assert sealing.findings() == []
    assert archive_findings(verify_archive(to, [sealing.key_file])) == []


def _collect_over_the_end(sealing: Sealing, start: datetime) -> None:
    """Collect the last minutes of a month and the first of the next in one run, and seal it."""
    sealing.story.now = start
    node = next(iter(sealing.story.fleet.nodes.values()))
    for _ in range(6):
        sealing.story.minute(*((stream, 10, 20) for stream in node.streams))
    sealing.story.collect()
    sealing.seal()


def test_a_row_changed_since_it_was_archived_is_not_pruned(
    sealing: Sealing, tmp_path: Path, database_url: str
) -> None:
    """Numbers of rows are the same; what is thrown away is what the archive holds."""
    sealing.story.broken_invariants = list  # type: ignore[method-assign]
    _archive(sealing, tmp_path / "to")
    change = "UPDATE billing.charges SET reason = {} WHERE ledger_id = (SELECT max(ledger_id::text)"
    change += "::uuid FROM billing.charges)"
    tamper(database_url, change.format("'altered'"))
    with pytest.raises(BillingError, match="not archived as it is"):
        prune(_context(sealing, database_url), 1, is_unproven_meant=True)
    tamper(database_url, change.format("''"))
    assert prune(_context(sealing, database_url), 1, is_unproven_meant=True).months


def test_facts_said_to_be_pruned_are_missed(sealing: Sealing, database_url: str) -> None:
    """Whoever deletes a month's facts and says that they were pruned needs the log to say so."""
    sealing.story.broken_invariants = list  # type: ignore[method-assign]
    tamper(
        database_url,
        "CREATE TABLE public.kept_records AS TABLE billing.usage_records",
        "CREATE TABLE public.kept_charges AS TABLE billing.charges",
        "INSERT INTO billing.pruned SELECT DISTINCT '2026-04-01'::timestamptz, account_uuid,"
        " 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 FROM billing.charges",
        "DELETE FROM billing.usage_records",
        "DELETE FROM billing.charges",
    )
    assert {finding.kind for finding in sealing.findings()} == {"deleted"}
    tamper(
        database_url,
        "INSERT INTO billing.usage_records TABLE public.kept_records",
        "INSERT INTO billing.charges TABLE public.kept_charges",
        "DELETE FROM billing.pruned",
    )
