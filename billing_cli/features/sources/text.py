"""A move as text for a person at a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from billing_cli.core.times import format_rfc3339
from billing_cli.printable import printable, printable_lines

if TYPE_CHECKING:
    from billing_cli.features.sources.job import MoveResult


def move_text(result: MoveResult) -> str:
    """Return what goes on where, and what the operator does next."""
    if result.watermark is None:
        return printable(f"{result.job}: {result.status}: {result.error}")
    would = " (dry run: nothing is stored)" if result.dry_run else ""
    head = (
        f"{result.job}: {result.status}{would} - source {result.new_source_id} goes on after "
        f"{format_rfc3339(result.watermark)} with node {result.new_node_id}"
    )
    lines = [head]
    if result.new_source_id != result.old_source_id:
        lines.append(f"source {result.old_source_id} is to be removed from the configuration")
    if result.new_node_id != result.old_node_id:
        lines.append(
            f"{result.streams} counters of node {result.old_node_id} continue under the new id; "
            "expected_node_id and expected_env of the source, where set, have to name it"
        )
    return printable_lines(lines)
