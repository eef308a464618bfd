"""How an account's charges were calculated: totals first, then step by step."""

from __future__ import annotations

from typing import TYPE_CHECKING

from billing_cli.cli.tables import Column, Table
from billing_cli.cli.units import amounts_in, human_bytes, plural, with_currency
from billing_cli.core.times import format_rfc3339

if TYPE_CHECKING:
    from collections.abc import Iterator

    from billing_cli.cli.tables import Cell, Part
    from billing_cli.features.explain.explanation import (
        Entry,
        Explanation,
        HeldBack,
        LineExplanation,
        MinuteExplanation,
        Movement,
    )
    from billing_cli.features.explain.queries_totals import Sums


HELD_REASONS = {
    "account_rate": "above the plausible rate of the account",
    "line_rate": "above the plausible rate of the node",
    "duplicate": "another stream counts the same bytes",
    "daily_charge": "above the maximum of a day",
}

# By the job that wrote the correction.
CORRECTIONS = {
    "reconcile": "corrected from the exporter's history",
    "reverse": "taken back by `billing reverse`",
}


SUMS_COLUMNS = (
    Column("bytes", "bytes"),
    Column("included", "bytes"),
    Column("rated", "bytes"),
    Column("amount", "money"),
)


def explain_parts(explanation: Explanation, *, has_minutes: bool = True) -> list[Part]:
    """Return the account and its totals; on demand each minute from counters to balance."""
    account = f"account {explanation.account_uuid}"
    if explanation.account_uuid is None:
        account = f"{explanation.asked} is no account's uuid or proxy uuid yet"
    elif explanation.known_by != "account uuid":
        account += f" ({explanation.asked} is its {explanation.known_by})"
    if explanation.account_uuid is not None and not explanation.exists:
        account += ", which is deleted"
    parts: list[Part] = [account, *_waiting(explanation)]
    if explanation.account_uuid is None:
        return parts
    if explanation.evidence_since is not None:
        since = format_rfc3339(explanation.evidence_since)
        parts.append(
            f"evidence of minutes before {since} was pruned: of those only buckets are left"
        )
    if not explanation.minutes:
        return [*parts, f"nothing is on record{_range(explanation)}"]
    count = len(explanation.minutes)
    minutes = plural(explanation.total_minutes, "minute")
    cut = f", the first {count} of them" if explanation.next_minute and has_minutes else ""
    parts.append(f"{minutes} with usage{_range(explanation)}{cut}")
    parts += _totals(explanation)
    if has_minutes:
        parts += _details(explanation)
    parts += _gaps(explanation)
    if has_minutes and explanation.next_minute:
        hidden = plural(explanation.total_minutes - count, "more minute")
        since = format_rfc3339(explanation.next_minute)
        parts += ["", f"{hidden} to follow: --since {since}, or a higher --limit"]
    elif not has_minutes:
        parts += ["", "--minutes shows how each of them was calculated"]
    return parts


def totals_table(explanation: Explanation) -> Table:
    """Return the sums by day, node and inbound tag, as rows."""
    columns = (Column("day"), Column("node"), Column("inbound_tag"), *SUMS_COLUMNS)
    rows = [
        (part.day, part.stored_node_id, part.inbound_tag, *_sums(part.sums))
        for part in explanation.totals.parts
    ]
    return Table(columns, rows)


def _waiting(explanation: Explanation) -> Iterator[str]:
    for waiting in explanation.waiting:
        tag = waiting.name.inbound_tag or "(none)"
        yield (
            f"pending: {human_bytes(waiting.total_bytes)} since {format_rfc3339(waiting.since)} on "
            f"node {waiting.stored_node_id}, inbound tag {tag}"
        )
        if waiting.held_bytes:
            held = human_bytes(waiting.held_bytes)
            yield f"  and {held} held: `billing held list` shows why"
    if explanation.waiting and explanation.account_uuid is None:
        yield "they are charged in their own minutes once an account has this uuid"
    elif explanation.waiting:
        yield "`billing status` and `billing check` say why they can't be charged yet"


def _totals(explanation: Explanation) -> list[Part]:
    totals = explanation.totals
    if not totals.parts:
        return []
    sums = totals.sums
    line = (
        f"total: {sums.total_bytes:,} bytes = {sums.included_bytes:,} included + "
        f"{sums.rated_bytes:,} rated, amount {with_currency(sums.amount, explanation.currency)}"
    )
    parts: list[Part] = ["", line]
    if totals.opening_balance is not None and totals.closing_balance is not None:
        other = totals.other_changes
        charges = totals.other_charges
        others = f" {charges:+f} by charges of other minutes," if charges else ""
        others += f" {other:+f} otherwise (such as top-ups)," if other else ""
        closing = with_currency(totals.closing_balance, explanation.currency)
        parts.append(
            f"balance: {totals.opening_balance:f} before, {-sums.amount:+f} by these charges,"
            f"{others} {closing} after"
        )
    for key, groups in (
        ("day", totals.by_day),
        ("node", totals.by_node),
        ("inbound_tag", totals.by_inbound_tag),
    ):
        rows = [(name, *_sums(group)) for name, group in groups.items()]
        parts += ["", Table((Column(key), *SUMS_COLUMNS), rows, is_list=False)]
    return parts + amounts_in(explanation.currency)


def _sums(sums: Sums) -> tuple[Cell, ...]:
    return sums.total_bytes, sums.included_bytes, sums.rated_bytes, sums.amount


def _details(explanation: Explanation) -> Iterator[str]:
    for minute in explanation.minutes:
        yield ""
        yield from _minute(minute)


def _gaps(explanation: Explanation) -> Iterator[str]:
    if explanation.gaps:
        yield ""
        yield "gaps in the sources' history around these minutes"
    for gap in explanation.gaps:
        end = format_rfc3339(gap.to_at) if gap.to_at else "now"
        resolved = f", {gap.resolution}" if gap.resolved_at else ""
        yield f"  {gap.source_id}: {gap.kind} {format_rfc3339(gap.from_at)} to {end}{resolved}"


def _range(explanation: Explanation) -> str:
    parts = []
    if explanation.since is not None:
        parts.append(f" from {format_rfc3339(explanation.since)}")
    if explanation.until is not None:
        parts.append(f" before {format_rfc3339(explanation.until)}")
    return "".join(parts)


def _minute(minute: MinuteExplanation) -> Iterator[str]:
    yield format_rfc3339(minute.minute)
    for line in minute.lines:
        yield f"  node {line.stored_node_id}, inbound tag {line.line_code or '(none)'}"
        for step in _steps(line):
            yield f"    {step}"
    for entry in minute.foreign:
        yield (
            f"  another writer's ledger entry {entry.ledger_id}: {entry.entry_type}, "
            f"{entry.rated_bytes:,} rated bytes, amount {entry.amount_delta:f}"
        )


def _steps(line: LineExplanation) -> Iterator[str]:
    for movement in line.movements:
        yield from _movement(movement)
    for held in line.held:
        yield from _held(held)
    for bucket in line.buckets:
        region = f" of region {bucket.region}" if bucket.region else ""
        yield (
            f"bucket{region}: {bucket.uplink_bytes:,} up + {bucket.downlink_bytes:,} down "
            f"= {bucket.total_bytes:,} bytes"
        )
    if not line.buckets and (line.movements or line.entries):
        yield "bucket: there is none any more"
    for entry in line.entries:
        yield from _entry(entry)


def _movement(movement: Movement) -> Iterator[str]:
    stream = f"stream {movement.sample_uuid}"
    stamps = f"{format_rfc3339(movement.from_at)} to {format_rfc3339(movement.to_at)}"
    if movement.kind == "correction":
        start, end = movement.start, movement.end
        yield f"{stream}: {CORRECTIONS.get(movement.job, 'corrected')}, within {stamps}"
        yield (
            f"  bytes of this minute: up {start.uplink:,} -> {end.uplink:,}, "
            f"down {start.downlink:,} -> {end.downlink:,} ({_signed(movement)})"
        )
        return
    yield f"{stream}: snapshots {stamps}"
    if movement.first_sight == "new":
        yield "  it appeared then, so that all it counted is new"
    elif movement.first_sight == "taken_over":
        yield "  it goes on from the totals that the legacy writer left"
    elif movement.first_sight == "baseline":
        yield "  it goes on from the totals at first sight, which were not charged"
    if movement.before is not None:
        yield (
            f"  its counters restarted: they had come to {movement.before.uplink:,} up and "
            f"{movement.before.downlink:,} down, and began again at 0"
        )
    for taken in movement.taken_over:
        total = f"{taken.totals.uplink:,} bytes up / {taken.totals.downlink:,} down"
        if taken.kind == "renamed":
            yield f"  continues {', '.join(taken.streams)}: {total} taken over"
        else:
            yield f"  the last restart was none: {total} from before it are not charged again"
    yield f"  {_counters(movement)}"
    if movement.kind == "pending":
        yield "  it waited until it could be charged: for its account, a lock or a price"
    if movement.kind == "released":
        held_reason = HELD_REASONS.get(movement.held_reason, "the reason is not on record")
        yield f"  it was held ({held_reason}) and released: {movement.reason}"


def _held(held: HeldBack) -> Iterator[str]:
    movement = held.movement
    yield (
        f"stream {movement.sample_uuid}: snapshots {format_rfc3339(movement.from_at)} to "
        f"{format_rfc3339(movement.to_at)}"
    )
    yield f"  {_counters(movement)}"
    reason = f": {movement.reason}" if movement.reason else ""
    yield f"  {HELD_REASONS[held.held_reason]}, not charged, {held.state}{reason}"


def _counters(movement: Movement) -> str:
    start, end = movement.start, movement.end
    return (
        f"totals: up {start.uplink:,} -> {end.uplink:,}, "
        f"down {start.downlink:,} -> {end.downlink:,} ({_signed(movement)})"
    )


def _signed(movement: Movement) -> str:
    return f"{movement.uplink_bytes:+,} up, {movement.downlink_bytes:+,} down"


def _entry(entry: Entry) -> Iterator[str]:
    name = "charge" if entry.entry_type == "traffic_charge" else "adjustment"
    about = f" of charge {entry.adjusts}" if entry.adjusts else ""
    yield f"{name} {entry.ledger_id}{about}, {format_rfc3339(entry.created_at)}"
    if entry.reason:
        yield f"  reason: {entry.reason}"
    total = entry.included_bytes + entry.rated_bytes
    factors = f"x {_plain(entry.price_per_byte)} x {_plain(entry.multiplier)}"
    rounded = "" if entry.product == round(entry.product, 9) else ", rounded to 9 places"
    if entry.adjusts is None:
        yield (
            f"  {total:,} bytes: {entry.included_bytes:,} included in the quota of "
            f"{entry.quota_before:,}, {entry.rated_bytes:,} rated"
        )
        yield f"  {entry.rated_bytes:,} {factors} = {_plain(entry.product)}{rounded}"
    else:
        if total:
            yield (
                f"  {total:+,} bytes: {entry.included_bytes:+,} included, "
                f"{entry.rated_bytes:+,} rated"
            )
        yield (
            f"  {entry.standing_rated_bytes:,} rated bytes are left of it: "
            f"{entry.standing_rated_bytes:,} {factors} = {_plain(entry.product)}{rounded}; "
            f"charged before: {_plain(-entry.charged_before)}"
        )
    version = f" by pricing rule {entry.pricing_rule_version}" if entry.pricing_rule_version else ""
    yield f"  amount {entry.amount_delta:+f}{version}"
    yield (
        f"  balance {entry.balance_before:f} -> {entry.balance_after:f}, "
        f"quota {entry.quota_before:,} -> {entry.quota_after:,}"
    )
    if not entry.is_in_ledger:
        yield "  the ledger has no such row any more"


def _plain(amount: object) -> str:
    """Return a decimal without needless zeros: 0.000000002, not 2E-9 or 0.0000000020."""
    text = f"{amount:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
