"""What an audit found, as text for a person at a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from billing_cli.cli.text import table
from billing_cli.core.times import format_rfc3339
from billing_cli.features.audit.findings import NOTICES, VIOLATIONS, plain
from billing_cli.printable import printable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from billing_cli.features.audit.findings import AuditReport, Figures, Finding, Value

ACCOUNT_HEADER = (
    "ACCOUNT",
    "RECORDS",
    "BUCKETS",
    "INCLUDED",
    "RATED",
    "OPENING",
    "LEDGER",
    "OUTSIDE",
    "BALANCE",
    "VERDICT",
)


def audit_text(report: AuditReport) -> str:
    """Return the verdict, what was found by kind, the accounts, and what was read."""
    verdict = f"{_count(report.violations, 'violation')}" if report.violations else "clean"
    notices = f", {_count(report.notices, 'notice')}" if report.notices else ""
    of = f" of account {report.account_uuid}" if report.account_uuid else ""
    lines = [f"audit{of}: {verdict}{notices}"]
    for kinds, name in ((VIOLATIONS, "VIOLATION"), (NOTICES, "NOTICE")):
        for kind, meaning in kinds.items():
            if kind in report.counts:
                lines += ["", f"{name} {kind}: {meaning}", *_listed(report, kind)]
    if report.accounts:
        lines += ["", table(ACCOUNT_HEADER, _account_rows(report))]
    if len(report.accounts) < report.rows["accounts"]:
        lines.append(f"... and {report.rows['accounts'] - len(report.accounts)} more accounts")
    read = ", ".join(f"{count:,} {_words(name)}" for name, count in report.rows.items())
    lines += ["", f"read: {read}", _sums(report.totals)]
    if report.evidence_since is not None:
        since = format_rfc3339(report.evidence_since)
        lines.append(f"since: {since}; older evidence was pruned, and its sums are compared")
    return "\n".join(lines)


def _sums(totals: Figures) -> str:
    charged = totals.included_bytes + totals.rated_bytes
    return (
        f"bytes: {totals.recorded_bytes:,} in records, {totals.bucket_bytes:,} in buckets, "
        f"{totals.included_bytes:,} included + {totals.rated_bytes:,} rated = {charged:,} charged\n"
        f"money: {totals.amount:+.9f} for these charges"
    )


def _listed(report: AuditReport, kind: str) -> list[str]:
    found = [one for one in report.findings if one.kind == kind]
    lines = [f"  {_line(one)}" for one in found]
    hidden = report.counts[kind] - len(found)
    if hidden:
        lines.append(f"  ... and {hidden:,} more; --limit shows more of them")
    return lines


def _line(finding: Finding) -> str:
    keys = dict(finding.keys)
    where = [f"account {finding.account_uuid}"] if finding.account_uuid else []
    where += [f"{_words(name)} {plain(value)}" for name, value in keys.items() if value != ""]
    told = _pairs(finding.expected, finding.found)
    return printable(", ".join(where) + (f": {'; '.join(told)}" if told else ""))


def _pairs(expected: Mapping[str, Value], found: Mapping[str, Value]) -> list[str]:
    """Say what is there beside what should be, column by column."""
    pairs = []
    for name in (*found, *(name for name in expected if name not in found)):
        text = f"{_words(name)} {plain(found[name])}" if name in found else f"{_words(name)} none"
        pairs.append(f"{text}, expected {plain(expected[name])}" if name in expected else text)
    return pairs


def _account_rows(report: AuditReport) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for one in report.accounts:
        figures = one.figures
        verdict = _count(one.violations, "violation") if one.violations else "clean"
        if one.notices:
            verdict += f", {_count(one.notices, 'notice')}"
        rows.append(
            (
                one.account_uuid,
                f"{figures.recorded_bytes:,}",
                f"{figures.bucket_bytes:,}",
                f"{figures.included_bytes:,}",
                f"{figures.rated_bytes:,}",
                "-" if one.opening_balance is None else f"{one.opening_balance:.9f}",
                f"{figures.amount:+.9f}",
                "-" if one.outside is None else f"{one.outside:+.9f}",
                "-" if one.current_balance is None else f"{one.current_balance:.9f}",
                verdict,
            )
        )
    return rows


def _count(count: int, what: str) -> str:
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"


def _words(name: str) -> str:
    return name.replace("_", " ")
