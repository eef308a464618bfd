"""Verifies the file of a statement offline: without configuration, database or network."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from billing_cli.cli.statement_html import statement_html, statement_in
from billing_cli.cli.units import plural
from billing_cli.core.statements import check_statement
from billing_cli.errors import ConfigurationError
from billing_cli.features.verify.result import Finding, findings_lines, findings_objects
from billing_cli.printable import printable
from billing_cli.signatures import read_public_keys, read_text, signature_problem

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from billing_cli.core.notes import VerifierKey
    from billing_cli.core.statements import StatementCheck

# Whoever alters these consistently, with the sums and the hash, is not found.
UNPROVEN = (
    "as the file says, not proven: currency, quota, opening and closing balance, other entries, "
    "and that no day is left out"
)


class StatementReport(NamedTuple):
    """What a statement says of itself, and what is wrong with it."""

    account_uuid: str | None
    month: str | None
    sealed_days: tuple[str, ...]
    unsealed_days: tuple[str, ...]
    keys: int
    findings: tuple[Finding, ...]


def verify_statement(path: Path, key_files: Sequence[Path]) -> StatementReport:
    """Verify a statement that is JSON or HTML.

    Without keys it is not known who signed the checkpoint, which the report says. Raises
    ConfigurationError where a file can't be used.
    """
    keys = read_public_keys(key_files)
    text = read_text(path)
    is_page = text.lstrip().startswith("<")
    data = statement_in(text) if is_page else text
    try:
        if data is None:
            raise ValueError  # noqa: TRY301
        statement: Any = json.loads(data, object_pairs_hook=_object, parse_int=_integer)
    except (ValueError, RecursionError):
        if '"account_uuid"' not in text:
            raise ConfigurationError(
                f"--statement {path}: neither the JSON nor the HTML of a statement"
            ) from None
        problem = "the statement can't be read: it was changed"
        return StatementReport(None, None, (), (), len(keys), (_finding(problem, None),))
    check = check_statement(statement)
    problems = [*check.problems]
    if is_page and not problems and statement_html(statement) != text:
        problems.append("the page shows something else than the statement in it")
    account = statement.get("account_uuid") if isinstance(statement, dict) else None
    account = account if isinstance(account, str) else None
    findings = [_finding(problem, account) for problem in problems]
    findings += _signature(check, keys)
    month = statement.get("month") if account else None
    return StatementReport(
        account,
        month if isinstance(month, str) else None,
        check.sealed_days,
        check.unsealed_days,
        len(keys),
        tuple(findings),
    )


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object. Raises ValueError for a key twice, of which readers show either value."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is there twice")
    return found


def _integer(text: str) -> int:
    """Return a number that is written as it was. Raises ValueError for -0."""
    if text == "-0":
        raise ValueError("-0 was not written by us")
    return int(text)


def _signature(check: StatementCheck, keys: Sequence[VerifierKey]) -> list[Finding]:
    if check.note is None or not keys:
        return []
    problem = signature_problem(check.note, keys)
    return [] if problem is None else [Finding("signature", None, None, None, problem)]


def _finding(problem: str, account: str | None) -> Finding:
    return Finding("changed", None, None, account, problem)


def statement_object(report: StatementReport) -> dict[str, Any]:
    """Return the report as a JSON object."""
    return {
        "job": "verify",
        "status": "partial" if report.findings else "ok",
        "error": None,
        "account_uuid": report.account_uuid,
        "month": report.month,
        "sealed_days": list(report.sealed_days),
        "unsealed_days": list(report.unsealed_days),
        "public_keys": report.keys,
        "findings": findings_objects(report.findings),
    }


def statement_report_text(report: StatementReport) -> str:
    """Return the verdict, what is wrong, and which days nothing vouches for."""
    count = len(report.findings)
    verdict = plural(count, "finding") if count else "unchanged"
    lines = [f"verify: {verdict}", *(f"  {line}" for line in findings_lines(report.findings))]
    if not count:
        proven = "proven" if report.keys else "consistent with their checkpoint"
        lines.append(
            f"statement {report.month} of account {report.account_uuid}: "
            f"{plural(len(report.sealed_days), 'day')} {proven}"
        )
        lines.append(UNPROVEN)
    if report.unsealed_days:
        lines.append(f"not sealed yet, added up only: {', '.join(report.unsealed_days)}")
    if not report.keys:
        lines.append("signatures were not checked: --public-key FILE")
    return printable("\n".join(lines), keep="\n")
