"""Months of facts as Parquet files: what they hold, and reading and writing them.

An archive of a month is a directory: `usage_records` and `charges` of its minutes; `other_...`, the
facts of other months that seals of this month also cover; `seals`, `days` (sealed days and leaves
of accounts), `between` (roots of the rest of the log), and the signed `checkpoint`. `manifest.json`
names the files with their hashes. `pyarrow` is loaded when one is written or read.
"""

from __future__ import annotations

import json
from datetime import datetime
from decimal import Decimal
from hashlib import file_digest
from typing import TYPE_CHECKING, Any

from billing_cli.core.canonical import NO_VALUE, escaped, time_text, unescaped
from billing_cli.core.seals import money_text
from billing_cli.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path


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


def fact_row(line: bytes, columns: dict[str, str]) -> tuple[Any, ...]:
    """Return run, step and typed fields of a canonical line that begins with run and step."""
    run_id, step, *fields = line[:-1].decode().split("\t")
    values = [_value(field, kind) for field, kind in zip(fields, columns.values(), strict=True)]
    return (run_id, int(step), *values)


def fact_line(values: Sequence[Any], columns: dict[str, str]) -> str:
    """Return the canonical line of typed fields."""
    fields = (_field(value, kind) for value, kind in zip(values, columns.values(), strict=True))
    return "\t".join(fields) + "\n"


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
                pa.array([row[place] for row in part], type=column.type)
                for place, column in enumerate(schema)
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
    files = {name: digest_of(directory / name) for name in names}
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


def digest_of(path: Path) -> str:
    """Return the hash of a file as the manifest has it."""
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()
