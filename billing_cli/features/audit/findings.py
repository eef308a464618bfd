"""What an audit finds, as values: violations, notices, and the sums that it compared."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from billing_cli.core.result import RunResult
from billing_cli.core.times import format_rfc3339

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_LIMIT = 50
"""Of each kind of finding, and of accounts, no more are listed than this unless asked for."""

Value = int | str | datetime | Decimal

VIOLATIONS: Mapping[str, str] = {
    "chain_broken": "a record does not start where the one before it and successions lead",
    "chain_overlaps": "a record begins before the one before it ended, or ends before it begins",
    "checkpoint_differs": "a stream's checkpoint is not where its records and successions end",
    "stream_missing": "records belong to a stream that is not there",
    "succession_unbalanced": "a succession's streams take over other totals than were handed over",
    "correction_broken": "a correction does not start at what was on record before it",
    "release_unmatched": "held deltas that were released and records of releases do not match",
    "bucket_missing": "records and charges agree on a bucket that is not there",
    "bucket_differs": "a bucket shows other bytes than its records and charges",
    "bucket_unproven": "a bucket of ours without any record or charge",
    "records_differ": "records are not the bytes that bucket and charges agree on",
    "charges_differ": "charges are not the bytes that bucket and records agree on",
    "region_differs": "bucket and charges of a line are of different regions",
    "bytes_differ": "bucket, records and charges have different bytes",
    "ledger_missing": "a charge has no ledger row",
    "ledger_differs": "a ledger row says something else than its charge",
    "ledger_unproven": "a ledger row of ours without a charge that proves it",
    "balance_after_differs": "a ledger row's balance is not the one its charge leads to",
    "amount_wrong": "an amount is not rated bytes x price x multiplier",
    "split_wrong": "included and rated bytes do not use the quota up first",
    "adjustments_wrong": "a charge with its adjustments is not what is left at the price it has",
    "adjustment_unfounded": "an adjustment of a charge that is not there, or is of another bucket",
    "charge_lost": "a stale write restored the balance or quota from before the charge",
    "repair_differs": "a repair of a balance is not what lost charges lead to",
    "quota_state_missing": "an account was charged and has no quota state",
    "pruned_differs": "buckets or ledger of a pruned month are not what they were then",
    "seal_missing": "usage records or charges that no seal covers",
    "seal_differs": "a seal covers another number of usage records or charges than there is",
    "watermark_differs": "a source's watermark is not its shared one, or is behind its streams",
    "shared_checkpoint_differs": "a shared checkpoint is not the sum of the account's streams",
}
"""Each kind of broken invariant, in the order of the checks."""

NOTICES: Mapping[str, str] = {
    "balance_outside": "a balance was changed, and no ledger row explains it",
    "quota_outside": "an included quota was changed, and no renewal explains it",
    "entry_unapplied": "ledger rows of another service that did not change the balance",
    "funds_invalid": "a balance or quota that nothing can be computed with",
    "past_succession": "charged before version 2: new counters that look like others continued",
    "past_clock_change": "charged before version 2: a restart that looks like a changed clock",
    "other_writer_ledger": "ledger rows were written by someone else",
    "other_writer_buckets": "buckets were written by someone else",
    "shared_minutes": "buckets hold bytes that someone else charged before us",
    "account_recreated": "the account was deleted and created again: of before, evidence is left",
    "account_deleted": "the account is deleted: its evidence is all that is left of it",
}
"""Each kind of thing that is worth knowing and no error."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One violation or notice.

    `keys` name the row, `expected` and `found` hold the values that disagree by column. Where one
    of them is empty, the row is missing, or there should be none.
    """

    kind: str
    account_uuid: str | None
    keys: Mapping[str, Value]
    expected: Mapping[str, Value] = field(default_factory=dict)
    found: Mapping[str, Value] = field(default_factory=dict)

    @property
    def is_violation(self) -> bool:
        """Return whether this is a broken invariant, not a notice."""
        return self.kind not in NOTICES


@dataclass(frozen=True, slots=True)
class Figures:
    """What was compared, of one account or of all: bytes, and money with 9 decimal places.

    `amount` is the sum of all ledger amounts, zero or negative.
    """

    recorded_bytes: int = 0
    bucket_bytes: int = 0
    included_bytes: int = 0
    rated_bytes: int = 0
    amount: Decimal = Decimal(0)


@dataclass(frozen=True, slots=True)
class AccountFigures:
    """One account's figures.

    `opening_balance` is what the first charge found, None where there is none yet. `violations`
    and `notices` count what was found of the account.
    """

    account_uuid: str
    figures: Figures
    current_balance: Decimal | None = None
    opening_balance: Decimal | None = None
    violations: int = 0
    notices: int = 0

    @property
    def outside(self) -> Decimal | None:
        """By how much others changed the balance since the first charge."""
        if self.current_balance is None or self.opening_balance is None:
            return None
        return self.current_balance - self.opening_balance - self.figures.amount


@dataclass(frozen=True, slots=True)
class AuditReport:
    """Everything that an audit says.

    `findings` holds at most `limit` of each kind, `counts` how many there are. `rows` counts the
    rows that were read, by table. `accounts` holds at most `limit`, those with violations first.
    `evidence_since` is where what was read begins, where older evidence was pruned. Unless
    `is_full`, what a clean audit had proven at `proven_at` was not proven again: `new_seals` were.
    """

    checked_at: datetime
    account_uuid: str | None
    limit: int
    findings: tuple[Finding, ...]
    counts: Mapping[str, int]
    rows: Mapping[str, int]
    totals: Figures
    accounts: tuple[AccountFigures, ...]
    evidence_since: datetime | None = None
    is_full: bool = True
    proven_at: datetime | None = None
    new_seals: int = 0
    currency: str = ""

    @property
    def violations(self) -> int:
        """How many violations there are, listed or not."""
        return sum(count for kind, count in self.counts.items() if kind not in NOTICES)

    @property
    def notices(self) -> int:
        """How many notices there are, listed or not."""
        return sum(count for kind, count in self.counts.items() if kind in NOTICES)


@dataclass(frozen=True, slots=True)
class AuditResult(RunResult):
    """An audit of all accounts as a run in the run history: how many findings there were."""

    violations: int = 0
    notices: int = 0

    @property
    def details(self) -> Mapping[str, Any]:
        """The two counts."""
        return {"violations": self.violations, "notices": self.notices}


def audit_object(report: AuditReport) -> dict[str, Any]:
    """Return the report as a JSON object; amounts and balances are decimal strings."""
    return {
        "job": "audit",
        "status": "violations" if report.violations else "ok",
        "error": None,
        "checked_at": format_rfc3339(report.checked_at),
        "account_uuid": report.account_uuid,
        "limit": report.limit,
        "full": report.is_full,
        "proven_at": report.proven_at and format_rfc3339(report.proven_at),
        "new_seals": report.new_seals,
        "currency": report.currency or None,
        "evidence_since": report.evidence_since and format_rfc3339(report.evidence_since),
        "violations": [_finding(finding) for finding in report.findings if finding.is_violation],
        "notices": [_finding(finding) for finding in report.findings if not finding.is_violation],
        "totals": {
            "violations": report.violations,
            "notices": report.notices,
            "by_kind": dict(report.counts),
            "rows": dict(report.rows),
            **_figures(report.totals),
        },
        "accounts": [
            {
                "account_uuid": account.account_uuid,
                "violations": account.violations,
                "notices": account.notices,
                **_figures(account.figures),
                "opening_balance": _money(account.opening_balance),
                "outside": _money(account.outside),
                "current_balance": _money(account.current_balance),
            }
            for account in report.accounts
        ],
    }


def plain(value: Value) -> int | str:
    """Return a value as JSON has it: times and amounts as text."""
    if isinstance(value, datetime):
        return format_rfc3339(value)
    return f"{value:f}" if isinstance(value, Decimal) else value


def _finding(finding: Finding) -> dict[str, Any]:
    return {
        "kind": finding.kind,
        "meaning": (VIOLATIONS if finding.is_violation else NOTICES)[finding.kind],
        "account_uuid": finding.account_uuid,
        "keys": {name: plain(value) for name, value in finding.keys.items()},
        "expected": {name: plain(value) for name, value in finding.expected.items()},
        "found": {name: plain(value) for name, value in finding.found.items()},
    }


def _figures(figures: Figures) -> dict[str, Any]:
    return {
        "recorded_bytes": figures.recorded_bytes,
        "bucket_bytes": figures.bucket_bytes,
        "included_bytes": figures.included_bytes,
        "rated_bytes": figures.rated_bytes,
        "amount": _money(figures.amount),
    }


def _money(amount: Decimal | None) -> str | None:
    return None if amount is None else f"{amount:.9f}"
