"""A move as text for a person at a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from billing_cli.cli.units import plural
from billing_cli.core.times import format_rfc3339

if TYPE_CHECKING:
    from billing_cli.cli.tables import Part
    from billing_cli.features.sources.accept import AcceptResult
    from billing_cli.features.sources.job import MoveResult


def move_parts(result: MoveResult) -> list[Part]:
    """Return what goes on where, and what the operator does next."""
    if result.watermark is None:
        return [f"{result.job}: {result.status}: {result.error}"]
    would = " (dry run: nothing is stored)" if result.dry_run else ""
    head = (
        f"{result.job}: {result.status}{would} - source {result.new_source_id} goes on after "
        f"{format_rfc3339(result.watermark)} with node {result.new_node_id}"
    )
    lines: list[Part] = [head]
    if result.new_source_id != result.old_source_id:
        lines.append(f"source {result.old_source_id} is to be removed from the configuration")
    if result.new_node_id != result.old_node_id:
        lines.append(
            f"{plural(result.streams, 'counter')} of node {result.old_node_id} continue under "
            "the new id; where the source sets expected_node_id or expected_env, change them"
        )
    return lines


def accept_parts(result: AcceptResult) -> list[Part]:
    """Return for how long one run of which source may pass its limits."""
    if result.until is None:
        return [f"{result.job}: {result.status}: {result.error}"]
    would = " (dry run: nothing is stored)" if result.dry_run else ""
    text = (
        f"{result.job}: {result.status}{would} - one run of source {result.source_id} may pass its "
        f"limits of streams until {format_rfc3339(result.until)}"
    )
    return [text]
