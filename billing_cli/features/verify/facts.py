"""Checks usage records and charges against their seals, in one pass over each table.

Both tables are read in the order of their keys. The facts of a seal come in that order too, so each
seal that is open in these minutes has a hash that grows. Seals are loaded some thousand at a time,
by their first minute; what is in memory are those whose minutes are being read.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from struct import unpack
from typing import TYPE_CHECKING, Any
from zlib import crc32

from billing_cli.core.seals import is_cut
from billing_cli.database.seals import (
    ADOPTION_JOB,
    ADOPTION_RUN,
    CHARGES,
    PRUNE_JOB,
    RECORDS,
    fact_of,
    read_facts,
)
from billing_cli.features.verify import queries as store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from psycopg import Connection

    from billing_cli.core.seals import Seal
    from billing_cli.database.seals import FactTable
    from billing_cli.features.verify.result import FindingKind, VerifyReport

SEALS_AT_ONCE = 20_000
NAMED = 20

# Seals come after this one.
FIRST = (datetime(1, 1, 1, tzinfo=UTC), ADOPTION_RUN, -1)
END = datetime(9999, 12, 31, tzinfo=UTC)

# Run and step, as they stand in a line.
SealKey = tuple[bytes, bytes]


@dataclass(slots=True)
class _Open:
    """A seal whose facts are being read: the hash of its lines so far, and their number."""

    seal: Seal
    is_whole: bool
    counts: dict[str, int] = field(default_factory=lambda: {RECORDS.name: 0, CHARGES.name: 0})
    hashes: dict[str, Any] = field(
        default_factory=lambda: {RECORDS.name: sha256(), CHARGES.name: sha256()}
    )


def check_facts(
    connection: Connection,
    scan_start: datetime,
    prune: Seal | None,
    report: VerifyReport,
    on_facts: Callable[[int], None],
) -> None:
    """Add to the report where facts are not what their seals cover, from a minute on.

    A seal that begins before `scan_start` is known, but not verified; one that lost facts by the
    last `prune` is verified by the seal of that. `on_facts` is called with numbers of facts that
    were read.
    """
    open_seals: dict[SealKey, _Open] = {}
    left = None
    if prune is not None:
        left = _Open(prune, is_whole=prune.first_bucket >= scan_start)
        open_seals[_key_of(prune)] = left
    after, start = FIRST, scan_start
    while start < END:
        seals = store.read_seals(connection, after, scan_start, SEALS_AT_ONCE)
        open_seals.update(_opened(seals, scan_start, left))
        end = END
        if len(seals) == SEALS_AT_ONCE:
            last = seals[-1]
            after, end = (last.first_bucket, last.run_id, last.step), last.first_bucket
        if end > start:
            for table in (RECORDS, CHARGES):
                _read(connection, table, (start, end), open_seals, report, on_facts)
            start = end
        ended = [key for key, open_seal in open_seals.items() if open_seal.seal.last_bucket < start]
        for key in ended:
            open_seal = open_seals.pop(key)
            if key == _key_of(open_seal.seal):
                _close(connection, open_seal, report)


def _opened(
    seals: Sequence[Seal], scan_start: datetime, left: _Open | None
) -> Iterator[tuple[SealKey, _Open]]:
    """Yield what covers the facts of each seal: itself, or `left` where a prune took some."""
    for seal in seals:
        if seal.job == PRUNE_JOB:
            continue
        if left is None or not is_cut(seal, left.seal):
            yield _key_of(seal), _Open(seal, is_whole=seal.first_bucket >= scan_start)
        elif seal.last_bucket >= left.seal.first_bucket:
            yield _key_of(seal), left


def _key_of(seal: Seal) -> SealKey:
    return seal.run_id.encode(), str(seal.step).encode()


def _read(
    connection: Connection,
    table: FactTable,
    minutes: tuple[datetime, datetime],
    open_seals: dict[SealKey, _Open],
    report: VerifyReport,
    on_facts: Callable[[int], None],
) -> None:
    """Read the facts of some minutes into the hashes of their seals."""
    is_records = table is RECORDS
    name = table.name
    unknown: defaultdict[tuple[bytes, bytes, bytes], int] = defaultdict(int)
    count = 0
    for run_id, step, line in map(fact_of, read_facts(connection, table, *minutes)):
        key = (run_id, step)
        if step == b"0":
            key = (ADOPTION_RUN.encode(), line[:4] + line[5:7])
        found = open_seals.get(key)
        if found is None:
            account = line[:-1].split(b"\t")[10 if is_records else 1]
            if len(unknown) < NAMED or (run_id, step, account) in unknown:
                unknown[run_id, step, account] += 1
        else:
            found.hashes[name].update(line)
            found.counts[name] += 1
        count += 1
        if count % 20_000 == 0:
            on_facts(20_000)
    on_facts(count % 20_000)
    if is_records:
        report.records += count
    else:
        report.charges += count
    for (run_id, step, account), rows in unknown.items():
        run = None if run_id == rb"\N" else run_id.decode()
        detail = f"{rows} rows of step {step.decode()} have no seal that covers their minute"
        report.add("inserted", name, detail, run, account.decode())


def _close(connection: Connection, open_seal: _Open, report: VerifyReport) -> None:
    """Compare the hashes of a seal whose facts were all read."""
    if not open_seal.is_whole:
        return
    seal = open_seal.seal
    report.seals += 1
    for table, count, digest in (
        (RECORDS, seal.records, seal.records_sha256),
        (CHARGES, seal.charges, seal.charges_sha256),
    ):
        found = open_seal.counts[table.name]
        if found != count or open_seal.hashes[table.name].digest() != digest:
            _describe(connection, table, seal, (count, found), report)


def _describe(
    connection: Connection,
    table: FactTable,
    seal: Seal,
    counts: tuple[int, int],
    report: VerifyReport,
) -> None:
    """Report what is wrong with the facts of a seal, row by row as far as possible."""
    sealed, found = counts
    run_id = None if seal.job == ADOPTION_JOB else seal.run_id
    of = f"of {sealed} rows of step {seal.step} ({seal.job})"
    checks = store.read_checks(connection, table, seal)
    if checks is None or len(checks) != 4 * sealed:
        kind: FindingKind = (
            "changed" if found == sealed else "deleted" if found < sealed else "inserted"
        )
        report.add(kind, table.name, f"{found} rows {of}, or others, are there", run_id)
        return
    missing, different, more = _compare(connection, table, seal, checks)
    if sealed - missing + len(different) + more != found:
        # Some are of minutes that are not the seal's.
        missing, different, more = _compare(connection, table, seal, checks, of_any_minute=True)
    unknown = len(different) + more
    changed = min(missing, unknown)
    for number, line in enumerate(different):
        which: FindingKind = "changed" if number < changed else "inserted"
        fields = line[:-1].decode().split("\t")
        is_record = table is RECORDS
        what = f"stream {fields[1]}" if is_record else f"entry {fields[2]}"
        account = fields[10] if is_record else fields[1]
        report.add(which, table.name, f"minute {fields[0]}, {what}, {of}", run_id, account)
    if more:
        report.add("changed", table.name, f"{more} more {of}", run_id)
    if missing > changed:
        _describe_gone(connection, table, seal, missing - changed, report)
    if not (missing or unknown):
        report.add("changed", table.name, f"one {of}", run_id)


def _compare(
    connection: Connection,
    table: FactTable,
    seal: Seal,
    checks: bytes,
    *,
    of_any_minute: bool = False,
) -> tuple[int, list[bytes], int]:
    """Compare a seal's facts with the checks of its lines.

    Returns how many checks have no fact, the first facts that have no check, and how many more.
    """
    missing = Counter(unpack(f">{len(checks) // 4}I", checks))
    different: list[bytes] = []
    more = 0
    for line in store.read_lines_of(connection, table, seal, of_any_minute=of_any_minute):
        check = crc32(line)
        if missing[check] > 0:
            missing[check] -= 1
        elif len(different) < NAMED:
            different.append(line)
        else:
            more += 1
    return missing.total(), different, more


def _describe_gone(
    connection: Connection, table: FactTable, seal: Seal, gone: int, report: VerifyReport
) -> None:
    """Report rows that are gone, by account where the other table still has something of them."""
    detail = f"{gone} of step {seal.step} ({seal.job}) are gone"
    accounts = store.read_accounts_without(connection, table, seal, NAMED)
    if not accounts or len(accounts) > gone:
        report.add("deleted", table.name, detail, seal.run_id)
    for account in accounts[:gone]:
        report.add("deleted", table.name, detail, seal.run_id, account)
