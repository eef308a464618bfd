"""Verifies archives of months without a database: facts, seals, days and the signed checkpoint."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from hashlib import sha256
from heapq import merge
from typing import TYPE_CHECKING, Any

from billing_cli.archives import (
    BETWEEN_COLUMNS,
    CHARGE_COLUMNS,
    CHECKPOINT,
    DAY_COLUMNS,
    FACT_KEY,
    FORMAT,
    MANIFEST,
    SEAL_COLUMNS,
    TABLES,
    USAGE_COLUMNS,
    digest_of,
    fact_line,
    read_parquet,
)
from billing_cli.core.archives import root_of_parts
from billing_cli.core.merkle import LeafRange, tree_root
from billing_cli.core.notes import parse_checkpoint
from billing_cli.core.seals import Seal, SealedDay, day_leaf, is_cut, salt_line, seal_leaf
from billing_cli.errors import ConfigurationError
from billing_cli.signatures import signature_problem

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from billing_cli.core.notes import Checkpoint, VerifierKey

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
            if files.get(name) != digest_of(directory / name):
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
    seals = _checked_seals(directory, check, signed.checkpoint)
    for table, columns in (("usage_records", USAGE_COLUMNS), ("charges", CHARGE_COLUMNS)):
        count = _check_facts(directory, table, columns, seals, check)
        if table == "charges":
            check.charges = count
        else:
            check.records = count


def _checked_seals(
    directory: Path, check: ArchiveCheck, signed: Checkpoint
) -> dict[tuple[str, int], Seal]:
    """Return the seals, which are compared with the log that was signed, as the days are.

    Only the checkpoint is signed: a seal counts for nothing unless its leaf is in the root.
    """
    seals: dict[tuple[str, int], Seal] = {}
    leaves: dict[int, bytes] = {}

    def add(leaf_number: int, leaf: bytes) -> None:
        if leaf_number in leaves:
            check.problems.append(f"two seals or days have the leaf number {leaf_number}")
        leaves[leaf_number] = leaf

    for *values, leaf_number in read_parquet(directory / "seals.parquet", SEAL_COLUMNS):
        seal = Seal(*values)
        if (seal.run_id, seal.step) in seals:
            check.problems.append(f"run {seal.run_id} step {seal.step} has two seals")
        seals[seal.run_id, seal.step] = seal
        add(leaf_number, seal_leaf(seal))
        check.seals += 1
    for day, leaf_number in _checked_days(directory, check):
        add(leaf_number, day_leaf(day))
    between = {
        LeafRange(start, end): root
        for start, end, root in read_parquet(directory / "between.parquet", BETWEEN_COLUMNS)
    }
    try:
        is_signed = root_of_parts(leaves, between, signed.size) == signed.root
    except ValueError as error:
        check.problems.append(f"seals, days and between: {error}")
    else:
        if not is_signed:
            check.problems.append("seals and days are not those of the log that was signed")
    return seals


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
    """Return which seal covers the facts of each: its own, or that of the prune that cut it.

    A prune cuts seals that reach over it. One that ends before has no facts that it could cover.
    """
    prunes = [seal for seal in seals.values() if seal.job == PRUNE_JOB]
    last = max(prunes, key=lambda seal: (seal.first_bucket, seal.created_at), default=None)
    return {
        key: (last.run_id, last.step)
        if last and is_cut(seal, last) and seal.last_bucket >= last.first_bucket
        else key
        for key, seal in seals.items()
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
    total = unsealed = 0
    for _, place, row in merge(
        rows_of(table, 0), rows_of(f"other_{table}", 1), key=lambda fact: fact[0]
    ):
        run_id, step, *values = row
        is_of_month = (values[0].year, values[0].month) == (month.year, month.month)
        total += place == 0
        key = (run_id, step) if step else (ADOPTION_RUN, values[0].year * 100 + values[0].month)
        if key not in covers or is_of_month != (place == 0):
            unsealed += 1
            continue
        key = covers[key]
        hashes[key].update(fact_line(values, columns).encode())
        counts[key] += 1
    if unsealed:
        check.problems.append(f"{table}: {unsealed} facts that no seal of the archive covers")
    for key, digest in hashes.items():
        seal = seals[key]
        wanted = (
            (seal.records, seal.records_sha256) if is_usage else (seal.charges, seal.charges_sha256)
        )
        if (counts[key], digest.digest()) != wanted:
            check.problems.append(f"{table} of run {key[0]} step {key[1]} are not what was sealed")
    return total
