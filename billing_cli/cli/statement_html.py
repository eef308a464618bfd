"""A statement as one HTML file: readable without scripts, printable on A4, verifiable.

The file holds the statement as JSON, and what is shown follows from that alone: a verification
makes the page again and compares.
"""

from __future__ import annotations

import json
import re
from calendar import monthrange
from decimal import Decimal
from html import escape
from typing import TYPE_CHECKING, Any

from billing_cli.printable import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

DATA = re.compile(r'<script type="application/json" id="statement">(.*?)</script>', re.DOTALL)

STYLE = """
@page { size: A4; margin: 18mm }
body { font: 10pt/1.45 system-ui, sans-serif; color: #1a1a1a; max-width: 174mm; margin: 2em auto }
h1 { font-size: 16pt; margin: 0 } h2 { font-size: 11pt; margin: 1.6em 0 .4em }
table { border-collapse: collapse; width: 100%; page-break-inside: auto }
th, td { text-align: left; padding: .25em .5em .25em 0; border-bottom: 1px solid #ddd }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums }
tr { page-break-inside: avoid } thead { display: table-header-group }
dl { display: grid; grid-template-columns: auto 1fr; gap: .2em 1.5em } dd { margin: 0 }
svg { width: 100%; height: auto } .mark { color: #8a4b00 } .hash { overflow-wrap: anywhere }
@media print { body { margin: 0; max-width: none } }
"""

WIDTH, HEIGHT, BASE = 700, 150, 130


def statement_html(statement: Mapping[str, Any]) -> str:
    """Return a statement as a self-contained page."""
    data = json.dumps(statement, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    data = "".join(
        _escaped(character) if character in "<>&" or not character.isprintable() else character
        for character in data
    )
    title = f"Statement {statement['month']}"
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{_text(title)}</title>
<style>{STYLE}</style>
</head>
<body>
<h1>{_text(title)}</h1>
<p>Account {_text(statement["account_uuid"])}</p>
{_summary(statement)}
<h2>Traffic by day</h2>
{_chart(statement)}
{_days(statement)}
<h2>Nodes</h2>
{_nodes(statement)}
<h2>Usage and prices</h2>
{_entries(statement)}
<h2>Other entries</h2>
{_others(statement)}
<h2>Verification</h2>
{_verification(statement)}
<script type="application/json" id="statement">{data}</script>
</body>
</html>
"""


def statement_in(page: str) -> str | None:
    """Return the JSON that a page holds; None where it holds none."""
    found = DATA.search(page)
    return found[1] if found else None


def _escaped(character: str) -> str:
    """Return a character as JSON escapes it: beyond U+FFFF, as two surrogates."""
    units = character.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[start : start + 4]}" for start in range(0, len(units), 4))


def _text(value: object) -> str:
    return escape(printable(str(value)))


def _table(header: Sequence[str], rows: Iterable[Sequence[object]], texts: int) -> str:
    """Return a table whose columns after the first `texts` hold numbers."""
    kinds = ["" if place < texts else ' class="number"' for place in range(len(header))]
    head = "".join(
        f"<th{kind}>{_text(title)}</th>" for kind, title in zip(kinds, header, strict=True)
    )
    body = "\n".join(
        "<tr>"
        + "".join(f"<td{kind}>{_text(cell)}</td>" for kind, cell in zip(kinds, row, strict=True))
        + "</tr>"
        for row in rows
    )
    return f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>"


def _summary(statement: Mapping[str, Any]) -> str:
    currency = f" {statement['currency']}" if statement["currency"] else ""
    others = sum((Decimal(other["amount"]) for other in statement["other_entries"]), Decimal(0))
    rows = (
        ("Opening balance", f"{statement['opening_balance']}{currency}"),
        ("Charges", f"{statement['amount']}{currency}"),
        ("Other entries", f"{others:z.9f}{currency}"),
        ("Closing balance", f"{statement['closing_balance']}{currency}"),
        ("Included bytes", f"{statement['included_bytes']:,}"),
        ("Rated bytes", f"{statement['rated_bytes']:,}"),
        ("Quota before and after", _quota(statement["quota"])),
    )
    return "<dl>" + "".join(f"<dt>{_text(a)}</dt><dd>{_text(b)}</dd>" for a, b in rows) + "</dl>"


def _quota(quota: Mapping[str, int | None]) -> str:
    before, after = quota["remaining_before"], quota["remaining_after"]
    return "-" if before is None or after is None else f"{before:,} / {after:,}"


def _chart(statement: Mapping[str, Any]) -> str:
    """Return a bar a day: included bytes below, rated bytes on top."""
    year, month = (int(part) for part in statement["month"].split("-"))
    count = monthrange(year, month)[1]
    sums = {number: [0, 0] for number in range(1, count + 1)}
    for day in statement["days"]:
        pair = sums[int(day["day"][8:])]
        pair[0] += day["included_bytes"]
        pair[1] += day["rated_bytes"]
    top = max(1, *(included + rated for included, rated in sums.values()))
    step = WIDTH / count
    bars = []
    for number, (included, rated) in sums.items():
        x = (number - 1) * step + step * 0.15
        heights = [max(0, part) / top * (BASE - 14) for part in (included, rated)]
        label = f"{statement['month']}-{number:02}: {included:,} included, {rated:,} rated bytes"
        bars.append(
            f"<g><title>{_text(label)}</title>"
            + _bar(x, BASE - heights[0], step * 0.7, heights[0], "#9bb8d3")
            + _bar(x, BASE - heights[0] - heights[1], step * 0.7, heights[1], "#23527c")
            + f'<text x="{x + step * 0.35:.1f}" y="{BASE + 12}" font-size="8" '
            f'text-anchor="middle">{number}</text></g>'
        )
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        'aria-label="Included and rated bytes by day" xmlns="http://www.w3.org/2000/svg">'
        f'<text x="0" y="9" font-size="8">{top:,} bytes; light: included, dark: rated</text>'
        f'<line x1="0" y1="{BASE}" x2="{WIDTH}" y2="{BASE}" stroke="#888"/>'
        f"{''.join(bars)}</svg>"
    )


def _bar(x: float, y: float, width: float, height: float, colour: str) -> str:
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{colour}"/>'
    )


def _days(statement: Mapping[str, Any]) -> str:
    header = ("Day", "Sealed", "Included bytes", "Rated bytes", "Amount", "Balance after")
    rows = [
        (
            day["day"],
            "sealed" if day["sealed"] else "not sealed yet",
            f"{day['included_bytes']:,}",
            f"{day['rated_bytes']:,}",
            day["amount"],
            day["balance_after"],
        )
        for day in statement["days"]
    ]
    return _table(header, rows, 2)


def _nodes(statement: Mapping[str, Any]) -> str:
    header = ("Node", "Inbound tag", "Included bytes", "Rated bytes", "Amount")
    rows = [
        (
            node["node_id"],
            node["inbound_tag"] or "-",
            f"{node['included_bytes']:,}",
            f"{node['rated_bytes']:,}",
            node["amount"],
        )
        for node in statement["nodes"]
    ]
    return _table(header, rows, 2)


def _entries(statement: Mapping[str, Any]) -> str:
    header = ("Booked", "Used", "Node", "Inbound tag", "Kind", "Reason")
    numbers = ("Price per byte", "Multiplier", "Included bytes", "Rated bytes", "Amount")
    rows = [
        (
            day["day"],
            entry["usage_day"],
            f"{entry['node_id']} {entry['region']}".strip(),
            entry["inbound_tag"] or "-",
            "correction" if entry["entry_type"] == "traffic_adjustment" else "usage",
            entry["reason"] or "-",
            entry["price_per_byte"],
            entry["multiplier"],
            f"{entry['included_bytes']:,}",
            f"{entry['rated_bytes']:,}",
            entry["amount"],
        )
        for day in statement["days"]
        for entry in day["entries"]
    ]
    return _table((*header, *numbers), rows, len(header))


def _others(statement: Mapping[str, Any]) -> str:
    rows = [
        (other["at"], other["kind"], other["reason"] or "-", other["amount"])
        for other in statement["other_entries"]
    ]
    return _table(("Time", "Kind", "Reason", "Amount"), rows, 3) if rows else "<p>none</p>"


def _verification(statement: Mapping[str, Any]) -> str:
    unsealed = [day["day"] for day in statement["days"] if not day["sealed"]]
    mark = f'<p class="mark">Not sealed yet: {_text(", ".join(unsealed))}</p>' if unsealed else ""
    note = statement["proof"]["checkpoint"]
    shown = "none" if note is None else note.strip()
    command = "billing verify --statement FILE --public-key FILE"
    return (
        f"<p>Sealed days are proven by the signed checkpoint: <code>{command}</code></p>{mark}"
        f'<pre class="hash">{escape(printable(shown, keep=chr(10)))}</pre>'
    )
