"""A statement as text for a person, and as CSV for a spreadsheet."""

from __future__ import annotations

import csv
import io
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from billing_cli.core.seals import ITEM_FIELDS
from billing_cli.printable import printable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

CSV_HEADER = (
    "day",
    "sealed",
    *ITEM_FIELDS,
    "included_bytes",
    "rated_bytes",
    "amount",
    "currency",
)

# What a spreadsheet would take for a formula.
FORMULA = ("=", "+", "-", "@", "\t", "\r")


def statement_text(statement: Mapping[str, Any]) -> str:
    """Return balances, days, nodes, corrections and entries of others."""
    currency = f" {statement['currency']}" if statement["currency"] else ""
    others = sum((Decimal(one["amount"]) for one in statement["other_entries"]), Decimal(0))
    lines = [
        f"statement {statement['month']} of account {statement['account_uuid']}",
        "",
        f"opening balance  {statement['opening_balance']}{currency}",
        f"charges          {statement['amount']}{currency}",
        f"other entries    {others:z.9f}{currency}",
        f"closing balance  {statement['closing_balance']}{currency}",
        f"included bytes   {statement['included_bytes']:,}",
        f"rated bytes      {statement['rated_bytes']:,}",
    ]
    for title, shown in (
        ("days", _days(statement)),
        ("nodes", _nodes(statement)),
        ("prices and corrections", _prices(statement)),
        ("other entries", _others(statement)),
    ):
        if shown:
            lines += ["", f"{title}:", shown]
    unsealed = [day["day"] for day in statement["days"] if not day["sealed"]]
    if unsealed:
        lines += ["", f"not sealed yet: {', '.join(unsealed)}"]
    return "\n".join(map(printable, "\n".join(lines).split("\n")))


def statement_csv(statement: Mapping[str, Any]) -> str:
    """Return a line for each sum of charges and for each other entry."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(CSV_HEADER)
    for day in statement["days"]:
        for one in day["entries"]:
            names = [_cell(one[name]) for name in ITEM_FIELDS]
            sums = [one["included_bytes"], one["rated_bytes"], one["amount"]]
            sealed = "yes" if day["sealed"] else "no"
            writer.writerow((day["day"], sealed, *names, *sums, _cell(statement["currency"])))
    for one in statement["other_entries"]:
        kind = {"usage_day": one["at"][:10], "entry_type": one["kind"], "reason": one["reason"]}
        names = [_cell(kind.get(name, "")) for name in ITEM_FIELDS]
        writer.writerow(
            (one["at"][:10], "no", *names, 0, 0, one["amount"], _cell(statement["currency"]))
        )
    return out.getvalue()


def _cell(text: str) -> str:
    shown = printable(text)
    return f"'{shown}" if shown.startswith(FORMULA) else shown


def _days(statement: Mapping[str, Any]) -> str:
    rows = [
        (
            day["day"],
            "yes" if day["sealed"] else "no",
            f"{day['included_bytes']:,}",
            f"{day['rated_bytes']:,}",
            day["amount"],
            day["balance_after"],
        )
        for day in statement["days"]
    ]
    header = ("DAY", "SEALED", "INCLUDED", "RATED", "AMOUNT", "BALANCE")
    return _table(header, rows) if rows else ""


def _nodes(statement: Mapping[str, Any]) -> str:
    rows = [
        (
            one["node_id"],
            one["inbound_tag"] or "-",
            f"{one['included_bytes']:,}",
            f"{one['rated_bytes']:,}",
            one["amount"],
        )
        for one in statement["nodes"]
    ]
    return _table(("NODE", "INBOUND TAG", "INCLUDED", "RATED", "AMOUNT"), rows) if rows else ""


def _prices(statement: Mapping[str, Any]) -> str:
    sums: dict[tuple[str, ...], Decimal] = {}
    for day in statement["days"]:
        for one in day["entries"]:
            kind = "correction" if one["entry_type"] == "traffic_adjustment" else "usage"
            key = kind, one["price_per_byte"], one["multiplier"], one["reason"] or "-"
            sums[key] = sums.get(key, Decimal(0)) + Decimal(one["amount"])
    rows = [(*key, f"{amount:z.9f}") for key, amount in sorted(sums.items())]
    return (
        _table(("KIND", "PRICE PER BYTE", "MULTIPLIER", "REASON", "AMOUNT"), rows) if rows else ""
    )


def _others(statement: Mapping[str, Any]) -> str:
    rows = [
        (one["at"], one["kind"], one["reason"] or "-", one["amount"])
        for one in statement["other_entries"]
    ]
    return _table(("TIME", "KIND", "REASON", "AMOUNT"), rows) if rows else ""


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return left-aligned columns, two spaces apart, as they go into a file or a letter."""
    cells = [header, *([printable(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    )
