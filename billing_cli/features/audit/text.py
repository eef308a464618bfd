"""What an audit found, as a list for people and programs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from billing_cli.cli.tables import Column, Line, Table
from billing_cli.cli.units import amounts_in, plural
from billing_cli.core.times import format_rfc3339
from billing_cli.features.audit.findings import NOTICES, VIOLATIONS, plain
from billing_cli.printable import printable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from billing_cli.cli.tables import Cell, Part
    from billing_cli.features.audit.findings import AuditReport, Finding, Value

ACCOUNT_COLUMNS = (
    Column("account"),
    Column("records", "bytes", is_extra=True),
    Column("buckets", "bytes", is_extra=True),
    Column("included", "bytes", is_extra=True),
    Column("rated", "bytes", is_extra=True),
    Column("opening", "money", is_extra=True),
    Column("ledger", "money", is_extra=True),
    Column("outside", "money", is_extra=True),
    Column("balance", "money"),
    Column("verdict", "prose"),
)
FINDING_COLUMNS = (
    Column("severity"),
    Column("kind"),
    Column("account"),
    Column("where", "prose"),
    Column("difference", "prose"),
)


def audit_parts(report: AuditReport) -> list[Part]:
    """Return the verdict, what was found by kind, the accounts, and what was read."""
    verdict = f"{plural(report.violations, 'violation')}" if report.violations else "clean"
    notices = f", {plural(report.notices, 'notice')}" if report.notices else ""
    of = f" of account {report.account_uuid}" if report.account_uuid else ""
    state = "violation" if report.violations else "ok"
    lines: list[Part] = [Line(f"audit{of}: {verdict}{notices}", state)]
    for kinds, name in ((VIOLATIONS, "VIOLATION"), (NOTICES, "NOTICE")):
        for kind, meaning in kinds.items():
            if kind in report.counts:
                lines += ["", f"{name} {kind}: {meaning}", *_listed(report, kind)]
    if report.accounts:
        accounts = Table(ACCOUNT_COLUMNS, _account_rows(report), is_list=False)
        lines += ["", accounts, *amounts_in(report.currency)]
    if len(report.accounts) < report.rows["accounts"]:
        hidden = plural(report.rows["accounts"] - len(report.accounts), "other account")
        lines.append(f"... and {hidden}")
    read = ", ".join(
        plural(count, _words(name).removesuffix("s")) for name, count in report.rows.items()
    )
    lines += ["", f"read: {read}", *_sums(report)]
    if report.proven_at is not None:
        lines.append(
            f"new: {plural(report.new_seals, 'seal')} since the last clean audit at "
            f"{format_rfc3339(report.proven_at)}; --full proves everything"
        )
    if report.evidence_since is not None:
        since = format_rfc3339(report.evidence_since)
        lines.append(f"since: {since}; older evidence was pruned, and its sums are compared")
    return lines


def findings_table(report: AuditReport) -> Table:
    """Return what was found as rows: violations first, then notices."""
    rows = [
        (
            "violation" if finding.is_violation else "notice",
            finding.kind,
            finding.account_uuid,
            ", ".join(
                f"{name} {plain(value)}" for name, value in finding.keys.items() if value != ""
            ),
            "; ".join(_pairs(finding.expected, finding.found)),
        )
        for finding in sorted(report.findings, key=lambda finding: not finding.is_violation)
    ]
    return Table(FINDING_COLUMNS, rows)


def _sums(report: AuditReport) -> list[str]:
    totals = report.totals
    charged = totals.included_bytes + totals.rated_bytes
    read = (
        f"bytes: {totals.recorded_bytes:,} in records, {totals.bucket_bytes:,} in buckets, "
        f"{totals.included_bytes:,} included + {totals.rated_bytes:,} rated = {charged:,} charged"
    )
    currency = f" {report.currency}" if report.currency else ""
    return [read, f"money: {totals.amount:+.9f}{currency} for these charges"]


def _listed(report: AuditReport, kind: str) -> list[str]:
    found = [finding for finding in report.findings if finding.kind == kind]
    lines = [f"  {_line(finding)}" for finding in found]
    hidden = report.counts[kind] - len(found)
    if hidden:
        lines.append(f"  ... and {hidden:,} more; --limit shows more of them")
    return lines


def _line(finding: Finding) -> str:
    keys = dict(finding.keys)
    where = [f"account {finding.account_uuid}"] if finding.account_uuid else []
    where += [f"{_words(name)} {plain(value)}" for name, value in keys.items() if value != ""]
    values = _pairs(finding.expected, finding.found)
    return printable(", ".join(where) + (f": {'; '.join(values)}" if values else ""))


def _pairs(expected: Mapping[str, Value], found: Mapping[str, Value]) -> list[str]:
    """Return each column's found and expected value."""
    pairs = []
    for name in (*found, *(name for name in expected if name not in found)):
        text = f"{_words(name)} {plain(found[name])}" if name in found else f"{_words(name)} none"
        pairs.append(f"{text}, expected {plain(expected[name])}" if name in expected else text)
    return pairs


def _account_rows(report: AuditReport) -> list[tuple[Cell, ...]]:
    rows: list[tuple[Cell, ...]] = []
    for account in report.accounts:
        figures = account.figures
        verdict = plural(account.violations, "violation") if account.violations else "clean"
        if account.notices:
            verdict += f", {plural(account.notices, 'notice')}"
        rows.append(
            (
                account.account_uuid,
                figures.recorded_bytes,
                figures.bucket_bytes,
                figures.included_bytes,
                figures.rated_bytes,
                account.opening_balance,
                figures.amount,
                account.outside,
                account.current_balance,
                verdict,
            )
        )
    return rows


def _words(name: str) -> str:
    return name.replace("_", " ")
