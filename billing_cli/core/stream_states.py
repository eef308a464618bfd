"""The streams of a node while its snapshots are applied, and restarts that can be revoked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from billing_cli.core.model import Succession, SuccessionSide
from billing_cli.core.succession import ZERO, covers, minus, smaller, taken_over, total_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from billing_cli.core.changes import Changed, Changes
    from billing_cli.core.model import Checkpoint, Snapshot, StreamName, StreamState, Totals


class StreamStates:
    """Checkpoints by name, as they are now; those of present streams have stamps of their own.

    `absent` are the streams that the last snapshot with samples did not hold.
    """

    def __init__(
        self, streams: Mapping[StreamName, Checkpoint], samples_at: datetime | None
    ) -> None:
        self.known = dict(streams)
        self.absent = {
            name for name, checkpoint in self.known.items() if checkpoint.seen_at != samples_at
        }
        self._restarted = {
            n for n, checkpoint in self.known.items() if checkpoint.before_restart is not None
        }
        self._with_surplus = {
            n for n, checkpoint in self.known.items() if checkpoint.surplus is not None
        }
        # What ended in the snapshot at hand, and the largest one of those that continue it.
        self._ended: dict[StreamName, StreamName] = {}
        self._alone: set[StreamName] = set()
        # In the order in which they were changed first; some more than once.
        self._changed: list[StreamName] = []

    def set(self, name: StreamName, checkpoint: Checkpoint) -> None:
        """Change a stream's checkpoint."""
        self.known[name] = checkpoint
        self._changed.append(name)

    def leave(self, names: Iterable[StreamName], seen_at: datetime) -> None:
        """Mark streams as absent that were in the snapshot taken at `seen_at`, and are not now."""
        for name in names:
            self.set(name, self.known[name]._replace(seen_at=seen_at))
            self.absent.add(name)

    def changed(self, samples_at: datetime | None) -> dict[StreamName, Checkpoint]:
        """Return the checkpoints that changed; present streams were seen at `samples_at`."""
        checkpoints = {}
        for name in self._changed:
            checkpoint = self.known[name]
            if (
                samples_at is not None
                and samples_at != checkpoint.seen_at
                and (name not in self.absent)
            ):
                checkpoint = checkpoint._replace(seen_at=samples_at)
            checkpoints[name] = checkpoint
        return checkpoints

    def begin_again(self, returned: Iterable[Changed]) -> None:
        """Note what is still owed to the users of streams that return."""
        for name, before, _ in returned:
            if before.surplus != self.known[name].surplus:
                self.set(name, self.known[name]._replace(surplus=before.surplus))

    def end(self, succession: Succession) -> None:
        """Mark streams as continued; one that is not charged stays so under its former name.

        What a restart charged beyond goes to the largest of the streams that continue them, with
        `hand_over`.
        """
        heir = max(succession.continued, key=lambda side: sum(side.totals)).name
        known = self.known.get(heir)
        is_present = known is not None and known.state != "continued"
        if len(succession.continued) == 1 and (not is_present or heir in self._restarted):
            self._alone.add(heir)
        for name, _ in succession.ended:
            stream = self.known[name]
            if name != heir:
                self._ended[name] = heir
            state: StreamState = "continued" if stream.state == "active" else stream.state
            self.set(name, stream._replace(state=state))

    def hand_over(self) -> None:
        """Let the streams that continue others inherit what those were charged beyond.

        One that continues them alone also inherits what they had before a restart that can still be
        revoked, if it began with it or after it.
        """
        before: dict[StreamName, Totals] = {}
        restarted: set[StreamName] = set()
        for name, heir in self._ended.items():
            stream, other = self.known[name], self.known[heir]
            if stream.surplus is not None:
                surplus = total_of((other.surplus or ZERO, stream.surplus))
                self.set(heir, other._replace(surplus=surplus))
                self._with_surplus.add(heir)
            if stream.before_restart is not None:
                restarted.add(heir)
            had = before.get(heir, other.before_restart or ZERO)
            before[heir] = total_of((had, stream.before_restart or stream.totals))
            self.set(name, stream._replace(surplus=None, before_restart=None))
            self._with_surplus.discard(name)
            self._restarted.discard(name)
        for heir in restarted & self._alone:
            self.set(heir, self.known[heir]._replace(before_restart=before[heir]))
            self._restarted.add(heir)
        self._ended.clear()
        self._alone.clear()

    # ------------------------------------------------------------------------------- restarts

    def restart(self, names: Iterable[StreamName]) -> None:
        """Let streams go on from zero; remember their totals, while it can be revoked."""
        for name in names:
            before = self.known[name]
            restarted = before._replace(
                totals=ZERO, reset_epoch=before.reset_epoch + 1, before_restart=before.totals
            )
            self.set(name, restarted)
            self._restarted.add(name)

    def confirm_restart(self) -> None:
        """Forget the totals before the last restart: it can't be revoked any more."""
        for name in self._restarted:
            self.set(name, self.known[name]._replace(before_restart=None))
        self._restarted.clear()

    def is_passed(self, snapshot: Snapshot) -> bool:
        """Return whether a stream is above its totals before the last restart."""
        return any(snapshot.totals[name] != before for name, before in self._returned(snapshot))

    def _returned(self, snapshot: Snapshot) -> list[SuccessionSide]:
        """Return the streams that are back at their totals before the last restart, with those."""
        sides = (
            SuccessionSide(name, self.known[name].before_restart or ZERO)
            for name in self._restarted
            if name in snapshot.totals
        )
        return [side for side in sides if covers(snapshot.totals[side.name], side.totals)]

    def regained(
        self, snapshot: Snapshot, changes: Changes, renamed: Sequence[Succession]
    ) -> list[Succession]:
        """Return the revocation of the last restart, if any, and what earlier ones charged before.

        The growth that streams take over by being `renamed` in the snapshot is no byte twice.
        """
        at, taken = snapshot.collected_at, taken_over(renamed)
        is_shown = all(self._may_be_back(snapshot, succession) for succession in renamed)
        revoked = self._revocation(snapshot, taken) if is_shown else ()
        found = [Succession("restart_revoked", at, revoked, revoked)] if revoked else []
        names = {side.name for side in revoked}
        for name, before, totals in changes.known if self._with_surplus else ():
            surplus = before.surplus
            start = total_of((before.totals, taken.get(name, ZERO)))
            if surplus is None or name in names or not covers(totals, start):
                continue
            side = SuccessionSide(name, smaller(minus(totals, start), surplus))
            if any(side.totals):
                found.append(Succession("restart_revoked", at, (side,), (side,), is_surplus=True))
        return found

    def _may_be_back(self, snapshot: Snapshot, succession: Succession) -> bool:
        """Return whether renamed streams can be back at their totals before the last restart.

        Those that continue them must cover these, and what they had before it themselves.
        """
        heirs = [side.name for side in succession.continued]
        names = {side.name for side in succession.ended}
        names.update(name for name in heirs if name in self.known and name not in self.absent)
        before = (self.known[name].before_restart or self.known[name].totals for name in names)
        return covers(total_of(snapshot.totals[name] for name in heirs), total_of(before))

    def _revocation(
        self, snapshot: Snapshot, taken: Mapping[StreamName, Totals]
    ) -> tuple[SuccessionSide, ...]:
        """Return what streams regain where the snapshot shows that there was no restart.

        It does where all streams that are below their totals before it are back in one step, by at
        least the bytes that were charged since: a counter that passes its former totals as it
        grows makes no such step, and stops at them only where it grows by equal steps. What was
        charged beyond the step is absorbed by later growth. A stream that counted since and is
        left out of the snapshot shows nothing.
        """
        back = self._returned(snapshot)
        decisive = (n in snapshot.totals or not any(self.known[n].totals) for n in self._restarted)
        if len(back) < sum(decisive):
            return ()
        sides = []
        for name, before in back:
            stream = self.known[name]
            start = total_of((stream.totals, taken.get(name, ZERO)))
            growth = minus(snapshot.totals[name], start)
            if not covers(growth, ZERO):
                return ()
            is_stop = snapshot.totals[name] == before and not _is_even(stream.totals, growth)
            if not is_stop and not covers(growth, stream.totals):
                return ()
            owed = total_of((before, stream.surplus or ZERO))
            sides.append(SuccessionSide(name, smaller(growth, owed)))
        return tuple(sorted(sides))

    def revoke(self, succession: Succession) -> bool:
        """Give streams their totals before the restart back; keep what was charged beyond.

        Those that are left out get them when they are back. Returns whether that revokes the last
        restart of the process.
        """
        left_out = () if succession.is_surplus else sorted(self._restarted)
        parts = {**dict.fromkeys(left_out, ZERO), **dict(succession.continued)}
        for name, part in parts.items():
            stream = self.known[name]
            owed = stream.surplus or ZERO
            if not succession.is_surplus:
                owed = total_of((owed, stream.before_restart or ZERO))
                stream = stream._replace(before_restart=None)
            left = minus(owed, part)
            surplus = left if any(left) else None
            self.set(name, stream._replace(surplus=surplus))
            (self._with_surplus.add if surplus else self._with_surplus.discard)(name)
        if not succession.is_surplus:
            self._restarted.clear()
        return not succession.is_surplus


def _is_even(totals: Totals, growth: Totals) -> bool:
    """Return whether counters can have reached their totals from zero by steps of that growth."""
    pairs = zip(totals, growth, strict=True)
    return all(total % step == 0 if step else not total for total, step in pairs)
