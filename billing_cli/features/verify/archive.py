"""Verifies archives of months offline."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from billing_cli.archive_checks import ArchiveCheck, check_archive
from billing_cli.archives import months_in
from billing_cli.cli.units import plural
from billing_cli.errors import ConfigurationError
from billing_cli.features.verify.result import Finding, findings_lines, findings_objects
from billing_cli.signatures import read_public_keys

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def verify_archive(directory: Path, key_files: Sequence[Path]) -> list[ArchiveCheck]:
    """Verify each month in a directory, or the one that it is. Raises ConfigurationError."""
    try:
        import pyarrow as pa  # noqa: PLC0415
    except ImportError:
        raise ConfigurationError(
            "the package pyarrow is missing: pip install 'billing[archive]'"
        ) from None
    del pa
    keys = read_public_keys(key_files)
    return [check_archive(path, keys) for path in months_in(directory)]


def archive_findings(checks: Sequence[ArchiveCheck]) -> list[Finding]:
    """Return what is wrong with the months."""
    return [
        Finding(
            "signature" if problem.startswith("checkpoint: ") else "changed",
            None,
            None,
            None,
            f"{check.month}: {problem}",
        )
        for check in checks
        for problem in check.problems
    ]


def archive_object(checks: Sequence[ArchiveCheck], key_count: int) -> dict[str, Any]:
    """Return the verification as a JSON object."""
    findings = archive_findings(checks)
    return {
        "job": "verify",
        "status": "partial" if findings else "ok",
        "error": None,
        "months": [
            {
                "month": check.month,
                "records": check.records,
                "charges": check.charges,
                "seals": check.seals,
                "days": check.days,
            }
            for check in checks
        ],
        "public_keys": key_count,
        "findings": findings_objects(findings),
    }


def archive_text(checks: Sequence[ArchiveCheck], key_count: int) -> str:
    """Return the verdict, what is wrong, and what was read."""
    findings = archive_findings(checks)
    verdict = plural(len(findings), "finding") if findings else "unchanged"
    lines = [f"verify: {verdict}", *(f"  {line}" for line in findings_lines(findings))]
    lines += [
        f"{check.month}: {plural(check.records, 'usage record')} and "
        f"{plural(check.charges, 'charge')} of {plural(check.seals, 'seal')}, "
        f"{plural(check.days, 'day')}"
        for check in checks
    ]
    if not key_count:
        lines.append("signatures were not checked: --public-key FILE")
    return "\n".join(lines)
