"""An explanation as a JSON object."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from billing_cli.core.objects import attributes, plain

if TYPE_CHECKING:
    from collections.abc import Mapping

    from billing_cli.features.explain.explanation import Explanation, LineExplanation, Movement
    from billing_cli.features.explain.queries_totals import AccountTotals, Sums

SUMS = "total_bytes included_bytes rated_bytes amount"


def explanation_object(explanation: Explanation) -> dict[str, Any]:
    """Return the explanation as a JSON object; amounts and balances are decimal strings."""
    return {
        "job": "explain",
        "status": "ok",
        "error": None,
        **attributes(
            explanation,
            """asked account_uuid known_by since until evidence_since total_minutes next_minute
            gaps""",
        ),
        "account_exists": explanation.exists,
        "currency": explanation.currency or None,
        "totals": _totals(explanation.totals),
        "waiting": [
            {
                "node_id": waiting.stored_node_id,
                **waiting.name._asdict(),
                **attributes(waiting, "since total_bytes held_bytes"),
            }
            for waiting in explanation.waiting
        ],
        "minutes": [
            {
                "minute": plain(minute.minute),
                "lines": [_line(line) for line in minute.lines],
                "other_writer_entries": plain(minute.foreign),
            }
            for minute in explanation.minutes
        ],
    }


def _totals(totals: AccountTotals) -> dict[str, Any]:
    def grouped(key: str, groups: Mapping[str, Sums]) -> list[dict[str, Any]]:
        return [{key: name, **attributes(sums, SUMS)} for name, sums in groups.items()]

    return {
        **attributes(totals.sums, SUMS),
        **attributes(totals, "opening_balance closing_balance other_charges other_changes"),
        "by_day": grouped("day", totals.by_day),
        "by_node": grouped("node_id", totals.by_node),
        "by_inbound_tag": grouped("inbound_tag", totals.by_inbound_tag),
    }


def _line(line: LineExplanation) -> dict[str, Any]:
    return {
        "node_id": line.stored_node_id,
        "line_code": line.line_code,
        "movements": [_movement(movement) for movement in line.movements],
        "held": [
            {**_movement(held.movement), **attributes(held, "state held_reason")}
            for held in line.held
        ],
        "buckets": plain(line.buckets),
        "entries": [
            {**plain(entry), **attributes(entry, "product quota_after balance_after")}
            for entry in line.entries
        ],
    }


def _movement(movement: Movement) -> dict[str, Any]:
    return {
        **attributes(
            movement,
            """sample_uuid kind revision reset_epoch from_at to_at uplink_bytes downlink_bytes
            first_sight reason""",
        ),
        "uplink_start": movement.start.uplink,
        "uplink_end": movement.end.uplink,
        "downlink_start": movement.start.downlink,
        "downlink_end": movement.end.downlink,
        "before_restart": plain(movement.before),
        "taken_over": [
            {
                **attributes(taken, "kind at streams"),
                "uplink_total": taken.totals.uplink,
                "downlink_total": taken.totals.downlink,
            }
            for taken in movement.taken_over
        ],
    }
