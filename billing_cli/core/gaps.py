"""The gaps of a node while its snapshots are applied: where time, order or amounts are in doubt."""

from __future__ import annotations

from typing import TYPE_CHECKING

from billing_cli.core.model import Gap
from billing_cli.core.plausibility import plausible_bytes
from billing_cli.core.succession import ZERO, total_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from billing_cli.core.model import DeltaPolicy, Snapshot, StreamName, Succession, Totals


class Gaps:
    """The gaps that were found so far, and when the last snapshot was taken that was applied."""

    def __init__(self, policy: DeltaPolicy, previous_at: datetime | None, *, is_lost: bool) -> None:
        self.found: list[Gap] = []
        self.previous_at = previous_at
        self._policy = policy
        self._is_lost = is_lost

    def plausible_bytes(self, at: datetime) -> int:
        """Return how many bytes the node can have moved since the last snapshot."""
        return plausible_bytes(self._policy, self.previous_at, at)

    def ignored(
        self, ignored: Snapshot, lost: Mapping[StreamName, Totals], successor: Snapshot
    ) -> None:
        """Note snapshots of another clock or out of order; say what they could have meant."""
        at = successor.collected_at
        counted = total_of(successor.totals.get(name, ZERO) for name in lost)
        uncertain = sum(total_of(lost.values()))
        if sum(counted) > self.plausible_bytes(at):
            uncertain = 0
        self.found.append(Gap("disorder", ignored.collected_at, at, len(lost), uncertain))

    def applied(
        self,
        at: datetime,
        resets: int,
        successions: Sequence[Succession],
        uncertain: Mapping[str, int],
    ) -> None:
        """Note what is in doubt about a snapshot: `uncertain` bytes by account, and successions."""
        previous_at, self.previous_at = self.previous_at, at
        if previous_at is None:
            return
        if self._is_lost:
            self.found.append(Gap("history_lost", previous_at, at))
            self._is_lost = False
        elif (at - previous_at).total_seconds() > self._policy.late_after_seconds:
            self.found.append(Gap("late", previous_at, at))
        if resets:
            self.found.append(Gap("reset", previous_at, at, streams=resets))
        unclear = [
            succession
            for succession in successions
            if succession.at == at and succession.uncertain_bytes
        ]
        if unclear or uncertain:
            streams = sum(len(succession.continued) for succession in unclear) + len(uncertain)
            size_bytes = sum(succession.uncertain_bytes for succession in unclear) + sum(
                uncertain.values()
            )
            self.found.append(Gap("uncertain", previous_at, at, streams, size_bytes))
