"""From what asking an exporter showed to findings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from billing_cli.core.times import format_rfc3339
from billing_cli.features.check.findings import Finding, clock_state, clock_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime, timedelta
    from decimal import Decimal

    from billing_cli.config.source import Source
    from billing_cli.core.model import DeltaPolicy, NodeIdentity
    from billing_cli.core.source_facts import SourceFacts
    from billing_cli.features.check.findings import State

CERTIFICATE_WARNING_DAYS = 21
DATE_UNCERTAINTY_SECONDS = 1.0
"""A Date header has whole seconds."""

LIMITS = (
    "account_rate_bits_per_second",
    "line_rate_bits_per_second",
    "burst_hours",
    "max_streams_per_account",
    "max_new_streams_per_hour",
    "max_unresolved_streams_per_hour",
)
"""Of a policy: what bounds the bytes and the streams of one node."""

SECONDS_IN_A_MINUTE = 60
SECONDS_IN_AN_HOUR = 3600
SECONDS_IN_A_DAY = 86_400


@dataclass(frozen=True, slots=True)
class Expectations:
    """What is known of a source beforehand: configured, and stored by earlier runs.

    `rival` is another source that the node belongs to, or that speaks for it too.
    """

    node_id: str | None = None
    env: str | None = None
    stored_identity: NodeIdentity | None = None
    stored_contract: str | None = None
    watermark: datetime | None = None
    rival: str | None = None


def source_findings(
    source_id: str,
    facts: SourceFacts,
    expected: Expectations,
    *,
    now: datetime,
    stalled_after: timedelta,
) -> tuple[Finding, ...]:
    """Return what is to be said of a source; `now` is when asking began."""
    found: list[tuple[str, State, str]] = [("secrecy", "warning", note) for note in facts.notes]
    if facts.has_answered:
        found.append(("connection", *_connection(facts)))
    if facts.failure is not None:
        found.append((facts.failure.stage, "failed", facts.failure.reason))
    for name, expires_at in (
        ("certificate", facts.certificate_expires_at),
        ("client certificate", facts.client_certificate_expires_at),
        ("ca_bundle", facts.authorities_expire_at),
    ):
        if expires_at is not None:
            found.append((name, *_expiry(expires_at, now)))
    if facts.is_accepted:
        with_what = " and ".join(facts.shown)
        text = f"{with_what} accepted" if with_what else "none is configured, none was asked for"
        found.append(("authentication", "ok", text))
    if facts.contract is not None:
        found.append(("contract", *_contract(facts.contract, expected)))
    if facts.identity is not None:
        found.append(("identity", *_identity(facts.identity, expected)))
    asked_at = facts.asked_at or now
    found += _snapshots(facts, expected, asked_at, stalled_after)
    found += _clock(facts, asked_at)
    return tuple(Finding("source", *finding, source_id) for finding in found)


def limits_finding(source: Source, policy: DeltaPolicy, max_daily_charge: Decimal) -> Finding:
    """Return the limits that hold for a source: its own, else those of all."""
    limits = {key: f"{getattr(policy, key)}" for key in LIMITS}
    limits["max_daily_charge"] = f"{max_daily_charge:f}"
    shown = [
        f"{key} {value}" + ("" if getattr(source, key, None) is None else " (its own)")
        for key, value in limits.items()
    ]
    return Finding("source", "limits", "ok", ", ".join(shown), source.source_id)


def rivals_of(identities: Mapping[str, NodeIdentity], owners: Mapping[str, str]) -> dict[str, str]:
    """Return, for each source that speaks for a node of another one, that other source.

    `identities` is what sources answered, by source id; `owners` says which source each stored
    node id belongs to so far.
    """
    claimants: dict[str, list[str]] = {}
    for source_id, identity in identities.items():
        claimants.setdefault(identity.stored, []).append(source_id)
    rivals = {}
    for node, source_ids in claimants.items():
        owner = owners.get(node)
        for source_id in source_ids:
            others = [owner] if owner else [rival for rival in source_ids if rival != source_id]
            if others and owner != source_id:
                rivals[source_id] = others[0]
    return rivals


def _connection(facts: SourceFacts) -> tuple[State, str]:
    if facts.protocol is not None:
        return "ok", f"{facts.endpoint} answers over {facts.protocol}, chain and name verified"
    if facts.is_exposed:
        return "warning", f"{facts.endpoint} answers over plain HTTP: anyone between can change it"
    return "ok", f"{facts.endpoint} answers over plain HTTP, within this machine"


def _expiry(expires_at: datetime, now: datetime) -> tuple[State, str]:
    days = (expires_at - now).total_seconds() / SECONDS_IN_A_DAY
    date = expires_at.date().isoformat()
    if days <= 0:
        return "failed", f"expired on {date}"
    state: State = "warning" if days < CERTIFICATE_WARNING_DAYS else "ok"
    return state, f"expires in {int(days)} days, on {date}"


def _contract(contract: str, expected: Expectations) -> tuple[State, str]:
    if expected.stored_contract not in {None, contract}:
        text = f"{contract}, but it was {expected.stored_contract} when last collected from"
        return "warning", text
    return "ok", contract


MOVE_SOURCE = "; to go on under another source: billing sources move"
MOVE_COUNTERS = (
    "; where the node has another id now, and its counters go on: "
    "billing sources move --same-counters"
)


def _identity(identity: NodeIdentity, expected: Expectations) -> tuple[State, str]:
    name = identity.stored
    for key, found, wanted in (
        ("expected_node_id", identity.node_id, expected.node_id),
        ("expected_env", identity.env, expected.env),
    ):
        if wanted is not None and found != wanted:
            return "failed", f"speaks for {name!r}, but {key} is {wanted!r}"
    stored = expected.stored_identity
    if expected.rival is not None:
        rival = f"{name!r} belongs to source {expected.rival!r}: it would be billed twice"
        return "failed", f"{rival}{MOVE_SOURCE}"
    if stored is not None and stored != identity:
        # Only the operator's word moves a source to another node.
        state: State = "failed" if expected.node_id is None else "warning"
        text = f"speaks for {name!r}, but {stored.stored!r} was collected from it so far"
        return state, f"{text}{MOVE_COUNTERS}"
    if stored is not None:
        return "ok", f"{name}, as stored"
    if expected.node_id is None:
        return "warning", f"{name}; without expected_node_id whoever answers first is believed"
    return "ok", f"{name}, as expected"


def _snapshots(
    facts: SourceFacts, expected: Expectations, asked_at: datetime, stalled_after: timedelta
) -> Iterator[tuple[str, State, str]]:
    if facts.contract == "latest":
        yield "history", "ok", "none: the latest snapshot is all there is"
    elif facts.oldest_at is not None:
        yield "history", *_history(facts.oldest_at, expected.watermark, asked_at)
    if facts.newest_at is not None:
        age_seconds = (asked_at - facts.newest_at).total_seconds()
        is_stalled = age_seconds > stalled_after.total_seconds()
        yield (
            "newest snapshot",
            "failed" if is_stalled else "ok",
            f"{_duration(max(0.0, age_seconds))} old, from {format_rfc3339(facts.newest_at)}",
        )
    elif facts.searched_since is not None:
        state: State = "warning" if facts.oldest_at is None else "failed"
        none_at_all = "there is no snapshot yet"
        none_lately = f"none since {format_rfc3339(facts.searched_since)}"
        yield "newest snapshot", state, none_at_all if facts.oldest_at is None else none_lately


def _history(
    oldest_at: datetime, watermark: datetime | None, asked_at: datetime
) -> tuple[State, str]:
    text = f"reaches back {_duration((asked_at - oldest_at).total_seconds())}"
    if watermark is not None and watermark < oldest_at:
        behind = format_rfc3339(watermark)
        return "warning", f"{text}, not as far as what was last collected, of {behind}"
    return "ok", f"{text}, to {format_rfc3339(oldest_at)}"


def _clock(facts: SourceFacts, asked_at: datetime) -> Iterator[tuple[str, State, str]]:
    difference = facts.clock_difference_seconds
    if difference is None and facts.newest_at is None:
        return
    ahead = 0.0 if facts.newest_at is None else (facts.newest_at - asked_at).total_seconds()
    if difference is None and ahead <= 0:
        yield "clock", "ok", "no Date in the answers; no snapshot is ahead of this machine's clock"
        return
    # Whoever stamps the snapshots may have another clock than whoever answers.
    if difference is None or ahead > abs(difference):
        difference = ahead
    yield "clock", clock_state(difference), clock_text(difference, DATE_UNCERTAINTY_SECONDS)


def _duration(seconds: float) -> str:
    if seconds < 2 * SECONDS_IN_A_MINUTE:
        return f"{seconds:.0f} s"
    if seconds < 2 * SECONDS_IN_AN_HOUR:
        return f"{seconds / SECONDS_IN_A_MINUTE:.0f} min"
    return f"{seconds / SECONDS_IN_AN_HOUR:.1f} h"
