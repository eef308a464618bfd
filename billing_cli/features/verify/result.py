"""What a verification found, as values and as a JSON object."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from billing_cli.cli.tables import Line
from billing_cli.cli.units import plural
from billing_cli.core.objects import attributes
from billing_cli.core.times import format_rfc3339

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from billing_cli.cli.tables import Part

FindingKind = Literal["changed", "deleted", "inserted", "truncated", "signature"]

# Of each kind and table; the others are counted.
LISTED = 100


class Finding(NamedTuple):
    """Something that is not as it was sealed.

    `kind`: rows were changed, deleted, inserted; the log lost its end (truncated); no known key
    vouches for a checkpoint (signature). `table` is None where a kept file is meant. `run_id` and
    `account_uuid` are None where they are not known, or not one.
    """

    kind: FindingKind
    table: str | None
    run_id: str | None
    account_uuid: str | None
    detail: str


@dataclass(slots=True)
class VerifyReport:
    """What was verified, in numbers, and what was found.

    `waiting` seals are not in the log yet: whoever can write the database can still replace them.
    Facts of `pruned` seals, of minutes before `pruned_before`, are gone, as the log says.
    `checkpoints` are those that were kept; where there are no keys their signatures were not looked
    at.
    """

    leaves: int = 0
    seals: int = 0
    records: int = 0
    charges: int = 0
    days: int = 0
    waiting: int = 0
    pruned: int = 0
    pruned_before: datetime | None = None
    checkpoints: int = 0
    keys: int = 0
    findings: list[Finding] = field(default_factory=list)
    hidden: int = 0

    def add(
        self,
        kind: FindingKind,
        table: str | None,
        detail: str,
        run_id: str | None = None,
        account_uuid: str | None = None,
    ) -> None:
        """Add a finding; above LISTED of its kind and table it is only counted."""
        alike = sum((finding.kind, finding.table) == (kind, table) for finding in self.findings)
        if alike >= LISTED:
            self.hidden += 1
        else:
            self.findings.append(Finding(kind, table, run_id, account_uuid, detail))


def verify_object(report: VerifyReport) -> dict[str, Any]:
    """Return a verification as a JSON object."""
    return {
        "job": "verify",
        "status": "partial" if report.findings else "ok",
        "error": None,
        **attributes(report, "leaves seals records charges days pruned_before checkpoints"),
        "waiting_seals": report.waiting,
        "pruned_seals": report.pruned,
        "public_keys": report.keys,
        "findings": findings_objects(report.findings),
        "hidden_findings": report.hidden,
    }


def findings_objects(findings: Sequence[Finding]) -> list[dict[str, Any]]:
    """Return findings as JSON objects."""
    return [finding._asdict() for finding in findings]


def verify_parts(report: VerifyReport) -> list[Part]:
    """Return the verdict, the findings, and what the verdict rests on."""
    count = len(report.findings) + report.hidden
    verdict = plural(count, "finding") if count else "unchanged"
    lines: list[Part] = [Line(f"verify: {verdict}", "failed" if count else "ok")]
    lines += [f"  {line}" for line in findings_lines(report.findings)]
    if report.hidden:
        lines.append(f"  ... and {report.hidden:,} more")
    lines.append(
        f"read: {plural(report.records, 'usage record')} and {plural(report.charges, 'charge')} of "
        f"{plural(report.seals, 'seal')}, {plural(report.days, 'day')}, "
        f"a log of size {report.leaves:,}"
    )
    if report.waiting:
        lines.append(
            f"not in the log yet: {plural(report.waiting, 'seal')}; `billing seal` appends them"
        )
    if report.pruned_before is not None:
        before = format_rfc3339(report.pruned_before)
        lines.append(f"pruned: facts before {before}, of {plural(report.pruned, 'seal')}")
    return [*lines, _trust(report)]


def findings_lines(findings: Sequence[Finding]) -> list[str]:
    """Return a line for each finding."""
    return [
        " ".join(
            part
            for part in (
                f"{finding.kind}:",
                finding.table,
                finding.run_id and f"run {finding.run_id}",
                finding.account_uuid and f"account {finding.account_uuid}",
                f"- {finding.detail}",
            )
            if part
        )
        for finding in findings
    ]


def _trust(report: VerifyReport) -> str:
    if not report.checkpoints:
        return (
            "no kept checkpoint was given: a log that was rewritten as a whole looks unchanged; "
            "--checkpoint FILE"
        )
    keys = "" if report.keys else "; signatures were not checked: --public-key FILE"
    return f"compared with {plural(report.checkpoints, 'kept checkpoint')}{keys}"
