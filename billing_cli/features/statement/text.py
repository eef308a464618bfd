"""A statement as text for a person, and as CSV for a spreadsheet."""

from __future__ import annotations

import csv
import io
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from billing_cli.cli.printing import text_of
from billing_cli.cli.tables import Column, Table
from billing_cli.cli.units import amounts_in
from billing_cli.core.seals import ITEM_FIELDS
from billing_cli.printable import printable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from billing_cli.cli.tables import Cell, Part, Terminal

CSV_HEADER = (
    "day",
    "sealed",
    *ITEM_FIELDS,
    "included_bytes",
    "rated_bytes",
    "amount",
    "currency",
)

SUMS = (Column("included", "count"), Column("rated", "count"), Column("amount", "money"))

# What a spreadsheet would take for a formula.
FORMULA = ("=", "+", "-", "@", "\t", "\r")


def statement_text(statement: Mapping[str, Any], shown_on: Terminal | None = None) -> str:
    """Return balances, days, nodes, corrections and entries of others; fitted to a terminal."""
    currency = f" {statement['currency']}" if statement["currency"] else ""
    others = sum((Decimal(other["amount"]) for other in statement["other_entries"]), Decimal(0))
    parts: list[Part] = [
        f"statement {statement['month']} of account {statement['account_uuid']}",
        "",
        f"opening balance  {statement['opening_balance']}{currency}",
        f"charges          {statement['amount']}{currency}",
        f"other entries    {others:z.9f}{currency}",
        f"closing balance  {statement['closing_balance']}{currency}",
        f"included bytes   {statement['included_bytes']:,}",
        f"rated bytes      {statement['rated_bytes']:,}",
    ]
    for title, table in (
        ("days", _days(statement)),
        ("nodes", _nodes(statement)),
        ("prices and corrections", _prices(statement)),
        ("other entries", _others(statement)),
    ):
        if table.rows:
            parts += ["", f"{title}:", table]
    parts += amounts_in(statement["currency"])
    unsealed = [day["day"] for day in statement["days"] if not day["sealed"]]
    if unsealed:
        parts += ["", f"not sealed yet: {', '.join(unsealed)}"]
    return text_of(parts, shown_on)


def statement_csv(statement: Mapping[str, Any]) -> str:
    """Return a line for each sum of charges and for each other entry."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(CSV_HEADER)
    for day in statement["days"]:
        for entry in day["entries"]:
            names = [_cell(entry[name]) for name in ITEM_FIELDS]
            sums = [entry["included_bytes"], entry["rated_bytes"], entry["amount"]]
            sealed = "yes" if day["sealed"] else "no"
            writer.writerow((day["day"], sealed, *names, *sums, _cell(statement["currency"])))
    for other in statement["other_entries"]:
        kind = {
            "usage_day": other["at"][:10],
            "entry_type": other["kind"],
            "reason": other["reason"],
        }
        names = [_cell(kind.get(name, "")) for name in ITEM_FIELDS]
        writer.writerow(
            (other["at"][:10], "no", *names, 0, 0, other["amount"], _cell(statement["currency"]))
        )
    return out.getvalue()


def _cell(text: str) -> str:
    shown = printable(text)
    return f"'{shown}" if shown.startswith(FORMULA) else shown


def _days(statement: Mapping[str, Any]) -> Table:
    columns = (Column("day"), Column("sealed"), *SUMS, Column("balance", "money"))
    return Table(
        columns,
        [
            (
                day["day"],
                "yes" if day["sealed"] else "no",
                *_sums(day),
                Decimal(day["balance_after"]),
            )
            for day in statement["days"]
        ],
    )


def _nodes(statement: Mapping[str, Any]) -> Table:
    columns = (Column("node"), Column("inbound_tag"), *SUMS)
    rows = [(node["node_id"], node["inbound_tag"], *_sums(node)) for node in statement["nodes"]]
    return Table(columns, rows)


def _sums(sums: Mapping[str, Any]) -> tuple[Cell, ...]:
    return sums["included_bytes"], sums["rated_bytes"], Decimal(sums["amount"])


def _prices(statement: Mapping[str, Any]) -> Table:
    sums: dict[tuple[str, ...], Decimal] = {}
    for day in statement["days"]:
        for entry in day["entries"]:
            kind = "correction" if entry["entry_type"] == "traffic_adjustment" else "usage"
            key = kind, entry["price_per_byte"], entry["multiplier"], entry["reason"]
            sums[key] = sums.get(key, Decimal(0)) + Decimal(entry["amount"])
    columns = (
        Column("kind"),
        Column("price_per_byte", "money"),
        Column("multiplier", "money"),
        Column("reason", "prose"),
        Column("amount", "money"),
    )
    return Table(
        columns,
        [
            (kind, Decimal(price), Decimal(multiplier), reason, amount)
            for (kind, price, multiplier, reason), amount in sorted(sums.items())
        ],
    )


def _others(statement: Mapping[str, Any]) -> Table:
    columns = (Column("time"), Column("kind"), Column("reason", "prose"), Column("amount", "money"))
    rows = [
        (other["at"], other["kind"], other["reason"], Decimal(other["amount"]))
        for other in statement["other_entries"]
    ]
    return Table(columns, rows)
