"""Months of facts as Parquet files, and their verification without a database.

An archive of a month is a directory: `usage_records` and `charges` of its minutes; `other_...`, the
facts of other months that seals of this month also cover; `seals`, `days` (sealed days and leaves
of accounts), `between` (roots of the rest of the log), and the signed `checkpoint`. `manifest.json`
names the files with their hashes. `pyarrow` is loaded when one is written or read.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from hashlib import file_digest, sha256
from heapq import merge
from typing import TYPE_CHECKING, Any

from billing_cli.core.archives import root_of_parts
from billing_cli.core.canonical import NO_VALUE, escaped, time_text, unescaped
from billing_cli.core.merkle import LeafRange, tree_root
from billing_cli.core.notes import parse_checkpoint
from billing_cli.core.seals import (
    Seal,
    SealedDay,
    day_leaf,
    is_cut,
    money_text,
    salt_line,
    seal_leaf,
)
from billing_cli.errors import ConfigurationError
from billing_cli.signatures import signature_problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from billing_cli.core.notes import VerifierKey

FORMAT = 1
MANIFEST = "manifest.json"
CHECKPOINT = "checkpoint"
ROWS_AT_ONCE = 20_000

# Columns in the order of a canonical line, after `run_id` and `step`; and their kinds.
USAGE_COLUMNS = {
    "bucket_start": "time",
    "stream_id": "integer",
    "from_at": "time",
    "revision": "integer",
    "to_at": "time",
    "reset_epoch": "integer",
    "uplink_start": "integer",
    "uplink_end": "integer",
    "downlink_start": "integer",
    "downlink_end": "integer",
    "account_uuid": "text",
    "kind": "text",
}
CHARGE_COLUMNS = {
    "bucket_start": "time",
    "account_uuid": "text",
    "ledger_id": "text",
    "entry_type": "text",
    "adjusts": "text",
    "stored_node_id": "text",
    "region": "text",
    "line_code": "text",
    "included_bytes": "integer",
    "rated_bytes": "integer",
    "price_per_byte": "text",
    "multiplier": "text",
    "amount_delta": "money",
    "quota_before": "integer",
    "balance_before": "money",
    "pricing_rule_version": "text",
    "reason": "text",
}
SEAL_COLUMNS = {
    "run_id": "text",
    "step": "integer",
    "job": "text",
    "created_at": "time",
    "first_bucket": "time",
    "last_bucket": "time",
    "records": "integer",
    "records_sha256": "bytes",
    "charges": "integer",
    "charges_sha256": "bytes",
    "leaf_number": "integer",
}
DAY_COLUMNS = {
    "day": "text",
    "accounts": "integer",
    "salts_sha256": "bytes",
    "root": "bytes",
    "leaf_number": "integer",
    "account_uuid": "text",
    "position": "integer",
    "salt": "bytes",
    "leaf": "bytes",
}
BETWEEN_COLUMNS = {"start": "integer", "end": "integer", "root": "bytes"}
FACT_KEY = {"run_id": "text", "step": "integer"}
TABLES = {
    "usage_records": FACT_KEY | USAGE_COLUMNS,
    "other_usage_records": FACT_KEY | USAGE_COLUMNS,
    "charges": FACT_KEY | CHARGE_COLUMNS,
    "other_charges": FACT_KEY | CHARGE_COLUMNS,
    "seals": SEAL_COLUMNS,
    "days": DAY_COLUMNS,
    "between": BETWEEN_COLUMNS,
}
PRUNE_JOB = "prune"
ADOPTION_RUN = "00000000-0000-0000-0000-000000000000"


@dataclass(slots=True)
class ArchiveCheck:
    """What an archive of a month holds, and what is wrong with it, in words."""

    month: str
    records: int = 0
    charges: int = 0
    seals: int = 0
    days: int = 0
    problems: list[str] = field(default_factory=list)


def fact_row(line: bytes, columns: dict[str, str]) -> tuple[Any, ...]:
    """Return run, step and typed fields of a canonical line that begins with run and step."""
    run_id, step, *fields = line[:-1].decode().split("\t")
    values = [_value(one, kind) for one, kind in zip(fields, columns.values(), strict=True)]
    return (run_id, int(step), *values)


def write_parquet(path: Path, columns: dict[str, str], rows: Iterable[Sequence[Any]]) -> int:
    """Write rows, some thousand at a time; return how many. Raises OSError."""
    import pyarrow as pa  # noqa: PLC0415
    from pyarrow import parquet  # noqa: PLC0415

    kinds = {
        "time": pa.timestamp("us", tz="UTC"),
        "integer": pa.int64(),
        "text": pa.string(),
        "money": pa.decimal128(38, 9),
        "bytes": pa.binary(),
    }
    schema = pa.schema([(name, kinds[kind]) for name, kind in columns.items()])
    count = 0
    with parquet.ParquetWriter(path, schema, compression="zstd") as writer:
        part: list[Sequence[Any]] = []

        def flush() -> None:
            arrays = [
                pa.array([row[place] for row in part], type=one.type)
                for place, one in enumerate(schema)
            ]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))
            part.clear()

        for row in rows:
            part.append(row)
            count += 1
            if len(part) == ROWS_AT_ONCE:
                flush()
        if part:
            flush()
    return count


def read_parquet(path: Path, columns: dict[str, str]) -> Iterator[tuple[Any, ...]]:
    """Yield the rows of a file, some thousand at a time in memory. Raises ValueError, OSError."""
    from pyarrow import ArrowException, parquet  # noqa: PLC0415

    try:
        with parquet.ParquetFile(path) as file:
            if file.schema_arrow.names != list(columns):
                raise ValueError(f"{path.name} has other columns")
            for batch in file.iter_batches(ROWS_AT_ONCE):
                yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)
    except ArrowException as error:
        raise ValueError(f"{path.name} is damaged: {error}") from None


def write_manifest(directory: Path, month: str, counts: dict[str, int]) -> None:
    """Name the files of an archive with their hashes and numbers of rows."""
    names = [*(f"{table}.parquet" for table in TABLES), CHECKPOINT]
    files = {name: _digest(directory / name) for name in names}
    manifest = {"format": FORMAT, "month": month, "rows": counts, "files": files}
    (directory / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")


def months_in(directory: Path) -> list[Path]:
    """Return the archives in a directory, or the one that it is. Raises ConfigurationError."""
    if (directory / MANIFEST).is_file():
        return [directory]
    found = sorted(path.parent for path in directory.glob(f"[0-9]*-[0-9][0-9]/{MANIFEST}"))
    if not found:
        raise ConfigurationError(f"{directory}: no archive: there is no {MANIFEST}")
    return found


def check_archive(directory: Path, keys: Sequence[VerifierKey]) -> ArchiveCheck:
    """Prove an archive of a month from its files alone. Raises ConfigurationError.

    Without keys it is not known who signed the checkpoint.
    """
    try:
        manifest = json.loads((directory / MANIFEST).read_text())
        check = ArchiveCheck(str(manifest["month"]))
        files, rows = dict(manifest["files"]), dict(manifest["rows"])
        if manifest["format"] != FORMAT:
            raise ConfigurationError(f"{directory}: format {manifest['format']} is not known")
    except OSError as error:
        raise ConfigurationError(f"{directory / MANIFEST}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError):
        return ArchiveCheck(directory.name, problems=[f"{MANIFEST} is damaged"])
    try:
        for name in (*(f"{table}.parquet" for table in TABLES), CHECKPOINT):
            if files.get(name) != _digest(directory / name):
                check.problems.append(f"{name} is not the file that was archived")
        _check_contents(directory, check, keys)
    except (OSError, ValueError, KeyError, TypeError, OverflowError) as error:
        check.problems.append(f"the archive can't be read: {error}")
    found = {"usage_records": check.records, "charges": check.charges, "seals": check.seals}
    check.problems += [
        f"{table}: {rows.get(table)} rows were archived, there are {count}"
        for table, count in found.items()
        if rows.get(table) != count and not check.problems
    ]
    return check


def _check_contents(directory: Path, check: ArchiveCheck, keys: Sequence[VerifierKey]) -> None:
    signed = parse_checkpoint((directory / CHECKPOINT).read_text())
    problem = signature_problem(signed, keys) if keys else None
    if problem is not None:
        check.problems.append(f"checkpoint: {problem}")
    seals = {}
    leaves: dict[int, bytes] = {}
    for *values, leaf_number in read_parquet(directory / "seals.parquet", SEAL_COLUMNS):
        seal = Seal(*values)
        seals[seal.run_id, seal.step] = seal
        leaves[leaf_number] = seal_leaf(seal)
        check.seals += 1
    for day, leaf_number in _checked_days(directory, check):
        leaves[leaf_number] = day_leaf(day)
    between = {
        LeafRange(start, end): root
        for start, end, root in read_parquet(directory / "between.parquet", BETWEEN_COLUMNS)
    }
    if root_of_parts(leaves, between, signed.checkpoint.size) != signed.checkpoint.root:
        check.problems.append("seals and days are not those of the log that was signed")
    for table, columns in (("usage_records", USAGE_COLUMNS), ("charges", CHARGE_COLUMNS)):
        count = _check_facts(directory, table, columns, seals, check)
        if table == "charges":
            check.charges = count
        else:
            check.records = count


def _checked_days(directory: Path, check: ArchiveCheck) -> Iterator[tuple[SealedDay, int]]:
    """Yield the sealed days, whose accounts are compared with what the day covers."""
    day: SealedDay | None = None
    number, salts, hashes = -1, sha256(), list[bytes]()

    def close() -> None:
        if day is None:
            return
        check.days += 1
        is_right = salts.digest() == day.salts_sha256 and len(hashes) == day.accounts
        if not is_right or tree_root(hashes) != day.root:
            check.problems.append(f"day {day.day}: its accounts are not those that were sealed")

    for text, *values in read_parquet(directory / "days.parquet", DAY_COLUMNS):
        accounts, salts_hash, root, leaf_number, account, position, salt, leaf = values
        found = SealedDay(date.fromisoformat(text), accounts, salts_hash, root)
        if found != day:
            close()
            day, number, salts, hashes = found, leaf_number, sha256(), []
            yield found, number
        if position != len(hashes) or leaf_number != number:
            check.problems.append(f"day {text}: accounts are not in their order")
        salts.update(salt_line(account, salt))
        hashes.append(leaf)
    close()


def covering(seals: Mapping[tuple[str, int], Seal]) -> dict[tuple[str, int], tuple[str, int]]:
    """Return which seal covers the facts of each: its own, or that of the prune that cut it."""
    prunes = [one for one in seals.values() if one.job == PRUNE_JOB]
    last = max(prunes, key=lambda one: (one.first_bucket, one.created_at), default=None)
    return {
        key: (last.run_id, last.step) if last and is_cut(one, last) else key
        for key, one in seals.items()
    }


def _check_facts(
    directory: Path,
    table: str,
    columns: dict[str, str],
    seals: dict[tuple[str, int], Seal],
    check: ArchiveCheck,
) -> int:
    """Compare facts with their seals; return how many there are of the month."""
    covers = covering(seals)
    hashes: dict[tuple[str, int], Any] = {key: sha256() for key in covers.values()}
    counts = dict.fromkeys(hashes, 0)
    is_usage = columns is USAGE_COLUMNS

    def rows_of(name: str, place: int) -> Iterator[tuple[tuple[Any, ...], int, tuple[Any, ...]]]:
        for row in read_parquet(directory / f"{name}.parquet", FACT_KEY | columns):
            yield (tuple(row[2:6]) if is_usage else tuple(row[2:5])), place, row

    month = datetime.strptime(check.month, "%Y-%m").replace(tzinfo=UTC)
    total = strangers = 0
    for _, place, row in merge(
        rows_of(table, 0), rows_of(f"other_{table}", 1), key=lambda one: one[0]
    ):
        run_id, step, *values = row
        is_of_month = (values[0].year, values[0].month) == (month.year, month.month)
        total += place == 0
        key = (run_id, step) if step else (ADOPTION_RUN, values[0].year * 100 + values[0].month)
        if key not in covers or is_of_month != (place == 0):
            strangers += 1
            continue
        key = covers[key]
        hashes[key].update(_line(values, columns).encode())
        counts[key] += 1
    if strangers:
        check.problems.append(f"{table}: {strangers} facts that no seal of the archive covers")
    for key, digest in hashes.items():
        seal = seals[key]
        wanted = (
            (seal.records, seal.records_sha256) if is_usage else (seal.charges, seal.charges_sha256)
        )
        if (counts[key], digest.digest()) != wanted:
            check.problems.append(f"{table} of run {key[0]} step {key[1]} are not what was sealed")
    return total


def _line(values: Sequence[Any], columns: dict[str, str]) -> str:
    fields = (_field(one, kind) for one, kind in zip(values, columns.values(), strict=True))
    return "\t".join(fields) + "\n"


def _value(text: str, kind: str) -> Any:
    if text == NO_VALUE:
        return None
    if kind == "integer":
        return int(text)
    if kind == "time":
        return datetime.fromisoformat(text)
    return Decimal(text) if kind == "money" else unescaped(text)


def _field(value: Any, kind: str) -> str:
    if value is None:
        return NO_VALUE
    if kind == "integer":
        return str(value)
    if kind == "time":
        return time_text(value)
    return money_text(value) if kind == "money" else escaped(value)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()
