"""Only the checkpoint of an archive is signed: whoever writes the other files anew is found."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from billing_cli.archives import CHARGE_COLUMNS, CHECKPOINT, fact_line, write_manifest
from billing_cli.core.notes import parse_checkpoint
from billing_cli.core.seals import salt_line
from billing_cli.features.archive.job import archive
from billing_cli.features.verify.archive import verify_archive

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.sealing import Sealing

Rows = list[dict[str, Any]]

JUNE = datetime(2026, 6, 15, tzinfo=UTC)
OTHER_RUN = "99999999-9999-4999-8999-999999999999"


class _Forgery:
    """The files of an archive of April, which are written anew with a manifest that fits."""

    def __init__(self, month: Path) -> None:
        self.month = month
        signed = parse_checkpoint((month / CHECKPOINT).read_text()).checkpoint
        self.size, self.root = signed.size, signed.root

    def rows(self, table: str) -> Rows:
        """Return the rows of a file."""
        return parquet.read_table(self.month / f"{table}.parquet").to_pylist()

    def write(self, table: str, rows: Rows) -> None:
        """Replace the rows of a file."""
        path = self.month / f"{table}.parquet"
        made = pa.Table.from_pylist(rows, schema=parquet.read_schema(path))
        parquet.write_table(made, path)
        counts = {name: len(self.rows(name)) for name in ("usage_records", "charges", "seals")}
        write_manifest(self.month, "2026-04", counts)

    def change_charges(self) -> tuple[Rows, dict[str, Any]]:
        """Raise an amount; return the honest seals, and the seal of what is there now."""
        seals, charges = self.rows("seals"), self.rows("charges")
        charges[0]["amount_delta"] *= 1000
        self.write("charges", charges)
        run = charges[0]["run_id"]
        (honest,) = [row for row in seals if row["run_id"] == run]
        own = [row for row in charges if row["run_id"] == run]
        return seals, {**honest, "charges_sha256": _digest(own)}


def _digest(charges: Rows) -> bytes:
    lines = [fact_line([row[name] for name in CHARGE_COLUMNS], CHARGE_COLUMNS) for row in charges]
    return sha256("".join(lines).encode()).digest()


def _the_root_of_all_is_given(forgery: _Forgery) -> None:
    seals, forged = forgery.change_charges()
    others = [row for row in seals if row["run_id"] != forged["run_id"]]
    forgery.write("seals", [forged, *others])
    forgery.write("between", [{"start": 0, "end": forgery.size, "root": forgery.root}])


def _a_second_seal_is_before_the_log(forgery: _Forgery) -> None:
    seals, forged = forgery.change_charges()
    forgery.write("seals", [*seals, {**forged, "leaf_number": -1}])


def _a_second_seal_is_after_the_log(forgery: _Forgery) -> None:
    seals, forged = forgery.change_charges()
    forgery.write("seals", [*seals, {**forged, "leaf_number": forgery.size}])


def _an_added_seal_has_the_leaf_number_of_the_next(forgery: _Forgery) -> None:
    seals, charges = forgery.rows("seals"), forgery.rows("charges")
    added = {**charges[-1], "run_id": OTHER_RUN, "amount_delta": charges[-1]["amount_delta"] * 9}
    forgery.write("charges", [*charges, added])
    seal = {**seals[0], "run_id": OTHER_RUN, "step": added["step"], "charges": 1}
    nothing = {"records": 0, "records_sha256": sha256().digest()}
    forgery.write("seals", [{**seal, **nothing, "charges_sha256": _digest([added])}, *seals])


def _an_added_day_has_the_leaf_number_of_the_next(forgery: _Forgery) -> None:
    days = forgery.rows("days")
    account, salt, leaf = (days[0][name] for name in ("account_uuid", "salt", "leaf"))
    salts = sha256(salt_line(account, salt)).digest()
    added = {"day": "2026-04-01", "accounts": 1, "salts_sha256": salts, "root": leaf}
    forgery.write("days", [{**days[0], **added, "position": 0}, *days])


@pytest.mark.parametrize(
    ("forge", "problem"),
    [
        (_the_root_of_all_is_given, "in place of a leaf"),
        (_a_second_seal_is_before_the_log, "outside of the log"),
        (_a_second_seal_is_after_the_log, "outside of the log"),
        (_an_added_seal_has_the_leaf_number_of_the_next, "have the leaf number"),
        (_an_added_day_has_the_leaf_number_of_the_next, "have the leaf number"),
    ],
)
def test_a_seal_or_day_that_is_no_leaf_of_the_signed_log_is_found(
    sealing: Sealing, tmp_path: Path, forge: Callable[[_Forgery], None], problem: str
) -> None:
    """Also where every file agrees with the others, and the checkpoint is as it was signed."""
    context = replace(sealing.story.context(), clock=lambda: JUNE)
    archive(context, date(2026, 4, 1), tmp_path / "to")
    forge(_Forgery(tmp_path / "to" / "2026-04"))
    (check,) = verify_archive(tmp_path / "to", [sealing.key_file])

    assert any(problem in found for found in check.problems), check.problems


def test_two_seals_of_one_step_are_found(sealing: Sealing, tmp_path: Path) -> None:
    """The later row would decide what the facts are compared with."""
    context = replace(sealing.story.context(), clock=lambda: JUNE)
    archive(context, date(2026, 4, 1), tmp_path / "to")
    forgery = _Forgery(tmp_path / "to" / "2026-04")
    seals, forged = forgery.change_charges()
    forgery.write("seals", [*seals, {**forged, "leaf_number": -1}])
    (check,) = verify_archive(tmp_path / "to", [sealing.key_file])

    assert f"run {forged['run_id']} step {forged['step']} has two seals" in check.problems
