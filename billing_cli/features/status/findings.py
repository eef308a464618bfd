"""What `status` finds: how serious it is, what it is, and the command that deals with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from billing_cli.cli.units import human_bytes, human_seconds, plural
from billing_cli.core.source_status import BUSY_FAILURE_SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from billing_cli.core.source_status import SourceStatus

Severity = Literal["failed", "warning", "note"]

GRAVEST_FIRST: tuple[Severity, ...] = ("failed", "warning", "note")


class Finding(NamedTuple):
    """One fact about a source, or about all of them (`source_id` is None).

    `failed` and `warning` need attention, a `note` does not. `advice` is one line that names the
    command to continue with.
    """

    severity: Severity
    source_id: str | None
    text: str
    advice: str


def findings_of(
    sources: Iterable[SourceStatus],
    missing_partitions: Sequence[str],
    max_lag_seconds: float,
    audit_violations: int = 0,
) -> tuple[Finding, ...]:
    """Return all findings, the gravest first, then in the order of the sources."""
    found = [*_violations(audit_violations), *_missing(missing_partitions)]
    for source in sources:
        if source.enabled:
            found += _problems(source, max_lag_seconds)
            found += _notes(source)
    return tuple(sorted(found, key=lambda finding: GRAVEST_FIRST.index(finding.severity)))


def worst_of(findings: Iterable[Finding]) -> Literal["ok", "warning", "failed"]:
    """Return the severity of the gravest finding; notes are ok."""
    severities = {finding.severity for finding in findings}
    if "failed" in severities:
        return "failed"
    return "warning" if "warning" in severities else "ok"


def _violations(count: int) -> Iterator[Finding]:
    if count:
        yield Finding(
            "warning",
            None,
            f"the last audit found {plural(count, 'violation')}",
            "change nothing, and run `billing audit`: it lists the rows "
            "(docs/operations.md#billingauditviolations)",
        )


def _missing(months: Sequence[str]) -> Iterator[Finding]:
    if months:
        yield Finding(
            "warning",
            None,
            f"no partition for the evidence of {', '.join(months)}",
            "`billing migrate` creates it; until then the rows go to the default partition",
        )


def _problems(source: SourceStatus, max_lag_seconds: float) -> Iterator[Finding]:
    name = source.source_id
    option = f"--source {name}"
    if source.last_error:
        yield Finding(
            "failed",
            name,
            f"last attempt failed: {source.last_error}",
            f"`billing check {option}` asks the exporter and says what is wrong",
        )
    if source.busy_seconds > BUSY_FAILURE_SECONDS:
        holder = source.lock_holder or "a transaction that has ended"
        yield Finding(
            "failed",
            name,
            f"locked for {human_seconds(source.busy_seconds)}, by {holder}",
            "end that session, by `SELECT pg_terminate_backend(PID)`; the next run goes on",
        )
    if source.lag_seconds is None:
        yield Finding(
            "warning",
            name,
            "nothing collected yet",
            f"`billing collect {option}` starts it, `billing check {option}` says what is missing",
        )
    elif source.lag_seconds > max_lag_seconds:
        yield Finding(
            "warning",
            name,
            f"{human_seconds(source.lag_seconds)} behind",
            f"`billing catch-up {option}` repeats steps until it is current",
        )
    if source.gaps.get("stalled"):
        yield Finding(
            "warning",
            name,
            "the exporter answers, but has nothing new",
            f"`billing check {option}` shows its newest snapshot; restart the exporter, or enable "
            "user statistics in xray",
        )
    if source.gaps.get("history_lost"):
        yield Finding(
            "failed",
            name,
            "history lost: charged with the next snapshot, unless counters restarted",
            f"`billing reconcile {option} --since TIME` moves the bytes into their minutes if the "
            "history is back; else the owner of the database closes the gap, by the UPDATE of "
            "docs/operations.md#billinghistorylost",
        )
    if source.held_deltas:
        yield Finding(
            "warning",
            name,
            f"{plural(source.held_deltas, 'delta')} of {human_bytes(source.held_bytes)} held",
            f"`billing held list {option}` shows why; then `billing held release` or "
            "`billing held reject`",
        )
    if source.uncharged_accounts:
        yield Finding(
            "warning",
            name,
            f"{plural(source.uncharged_accounts, 'account')} can't be charged: usage is pending",
            f"`billing collect {option}` says why, and charges it once that is put right",
        )


def _notes(source: SourceStatus) -> Iterator[Finding]:
    name = source.source_id
    option = f"--source {name}"

    def note(text: str, advice: str) -> Finding:
        return Finding("note", name, text, advice)

    if source.successions:
        uncertain = human_bytes(source.succession_uncertain_bytes)
        yield note(
            f"{plural(source.successions, 'succession')} in 24 h, {uncertain} uncertain: counters "
            "continue under other names, as after an exporter upgrade",
            f"`billing streams {option}` lists the counters; nothing to do after an upgrade",
        )
    if source.gaps.get("disorder"):
        uncertain = human_bytes(source.uncertain_bytes["disorder"])
        yield note(
            f"{plural(source.gaps['disorder'], 'disorder gap')}, {uncertain} uncertain: snapshots "
            "of another clock were ignored",
            f"check the node's clock (NTP); `billing check {option}` compares it with ours",
        )
    if source.gaps.get("uncertain"):
        uncertain = human_bytes(source.uncertain_bytes["uncertain"])
        yield note(
            f"{plural(source.gaps['uncertain'], 'uncertain gap')}, {uncertain} not charged: "
            "counters may have continued or started again",
            f"`billing held list {option}` shows the ranges",
        )
    if source.unresolved_streams:
        yield note(
            f"{plural(source.unresolved_streams, 'stream')} without an account: usage is pending",
            f"`billing streams --unresolved {option}`; charged when the account appears",
        )
    if source.waits_for_successor:
        yield note(
            "waits for the node's next snapshot: a counter decreased, and that one decides why",
            "nothing to do: the next `billing collect` decides",
        )
