"""What an account's streams on a node come to: the shared checkpoint, which knows no inbounds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from billing_cli.core.model import MAX_TOTAL, Checkpoint, Totals

if TYPE_CHECKING:
    from collections.abc import Iterable


def sum_by_account(streams: Iterable[tuple[str, Checkpoint]]) -> dict[str, Checkpoint]:
    """Sum (account, checkpoint) pairs by account: totals, the last stamp and the highest epoch.

    A sum that no counter could carry is the largest one that can.
    """
    sums: dict[str, Checkpoint] = {}
    for account, checkpoint in streams:
        other = sums.get(account)
        sums[account] = checkpoint if other is None else _sum(other, checkpoint)
    return sums


def _sum(one: Checkpoint, other: Checkpoint) -> Checkpoint:
    uplink = one.totals.uplink + other.totals.uplink
    downlink = one.totals.downlink + other.totals.downlink
    return Checkpoint(
        max(one.seen_at, other.seen_at),
        Totals(min(uplink, MAX_TOTAL), min(downlink, MAX_TOTAL)),
        max(one.reset_epoch, other.reset_epoch),
    )
