"""Applying a node's snapshots one after another: the only mutable state of the core."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from billing_cli.core.changes import account_changes, compare
from billing_cli.core.minutes import Minutes
from billing_cli.core.model import (
    Checkpoint,
    Gap,
    StreamName,
    Succession,
    SuccessionSide,
    Totals,
    UsageRecord,
)
from billing_cli.core.plausibility import plausible_bytes
from billing_cli.core.restart import judge
from billing_cli.core.succession import (
    ZERO,
    covers,
    duplicates,
    is_certain,
    minus,
    smaller,
    succession_of,
    total_of,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from billing_cli.core.changes import Changes
    from billing_cli.core.deltas import NodeState
    from billing_cli.core.model import DeltaPolicy, Snapshot, StreamOrigin, StreamState

EARLIEST = datetime.min.replace(tzinfo=UTC)


class Walk:
    """One pass over a node's snapshots; `core.deltas.advance` reads the outcome.

    `known` are the checkpoints as they are now; those of present streams are brought to
    `samples_at` only in the end. `restarted` are streams whose last restart can still be revoked.
    """

    def __init__(
        self, node: NodeState, accounts: Mapping[str, str], policy: DeltaPolicy, *, is_lost: bool
    ) -> None:
        self.samples_at = node.samples_at
        self.restarted_at = node.restarted_at
        self.minutes = Minutes(policy, node.credit, self._account)
        self.applied: list[Snapshot] = []
        self.origins: dict[StreamName, tuple[StreamOrigin, Checkpoint]] = {}
        self.gaps: list[Gap] = []
        self.successions: list[Succession] = []
        self.restarts: defaultdict[StreamName, set[datetime]] = defaultdict(set)
        self._accounts = accounts
        self._policy = policy
        self._is_lost = is_lost
        self._previous_at = node.watermark
        self._known = dict(node.streams)
        self._absent = {name for name, one in self._known.items() if one.seen_at != node.samples_at}
        self._restarted = {
            name for name, one in self._known.items() if one.before_restart is not None
        }
        self._with_surplus = {name for name, one in self._known.items() if one.surplus is not None}
        # Totals that are known to be older than those of any snapshot to come.
        self._floor: Mapping[StreamName, Totals] = {
            name: one.totals for name, one in self._known.items()
        }
        # In the order in which they were changed first; some more than once.
        self._touched: list[StreamName] = []

    def apply_all(self, fresh: Sequence[Snapshot], end: int, *, decide_now: bool) -> int:
        """Apply `fresh[:end]`; return the place before which it stopped to wait, or `end`.

        The snapshots from `end` on are known as successors, and not applied.
        """
        place = 0
        while place < end:
            snapshot, successors = fresh[place], fresh[place + 1 :]
            changes = compare(snapshot, self._known, self._absent, self.restarted_at)
            successions = self._successions(snapshot, changes)
            if not changes.decreased:
                self._apply(snapshot, changes, successions)
                place += 1
                continue
            verdict = judge(
                snapshot,
                changes.decreased,
                self._floor,
                changes.grown,
                successors,
                decide_now=decide_now,
            )
            if verdict.kind == "wait":
                break
            if verdict.kind == "disorder":
                self._ignore(snapshot, changes, fresh[place + verdict.ignored])
                place = min(place + verdict.ignored, end)
                continue
            if verdict.kind == "restart":
                self._apply_restart(snapshot, changes)
            else:
                self._apply(snapshot, changes, successions)
            place += 1
        self.minutes.close()
        return place

    @property
    def resets(self) -> int:
        """How often a stream's counters restarted."""
        return sum(map(len, self.restarts.values()))

    def checkpoints(self) -> dict[StreamName, Checkpoint]:
        """Return the checkpoints of all streams that were changed."""
        checkpoints = {}
        at = self.samples_at
        for name in self._touched:
            checkpoint = self._known[name]
            if at is not None and checkpoint.seen_at != at and name not in self._absent:
                checkpoint = checkpoint._replace(seen_at=at)
            checkpoints[name] = checkpoint
        return checkpoints

    # ------------------------------------------------------------------------------ successions

    def _successions(self, snapshot: Snapshot, changes: Changes) -> list[Succession]:
        """Return the successions in a snapshot; what they explain is no decrease any more."""
        found: list[Succession] = []
        if self.samples_at is not None and (changes.gone or (changes.new and changes.decreased)):
            for change in account_changes(changes, self._known, self._account):
                succession = succession_of(change, snapshot.collected_at)
                if succession is not None:
                    found.append(succession)
        revoked = self._revoked_restart(snapshot)
        if revoked is not None:
            found.append(revoked)
        found += self._absorbed(snapshot, changes)
        for side in (side for succession in found for side in succession.ended):
            changes.decreased.pop(side.name, None)
        if not found:
            return []
        tags_left = {name.inbound_tag for name in snapshot.totals}
        return [self._with_uncertainty(one, tags_left, snapshot) for one in found]

    def _returned(self, snapshot: Snapshot) -> list[SuccessionSide]:
        """Return the streams that are back at their totals before the last restart, with those."""
        sides = (
            SuccessionSide(name, self._known[name].before_restart or ZERO)
            for name in self._restarted
            if name in snapshot.totals
        )
        return [side for side in sides if covers(snapshot.totals[side.name], side.totals)]

    def _revoked_restart(self, snapshot: Snapshot) -> Succession | None:
        """Return the revocation of the last restart, where the snapshot shows that there was none.

        It does where all streams that are below their totals before it are back in one step, by at
        least the bytes that were charged since: a counter that passes its former totals as it
        grows makes no such step. What was charged beyond that is absorbed by later growth.
        """
        back = self._returned(snapshot)
        if not back or len(back) < len(self._restarted):
            return None
        sides = []
        for name, before in back:
            charged = self._known[name].totals
            growth = minus(snapshot.totals[name], charged)
            if not covers(growth, charged):
                return None
            sides.append(SuccessionSide(name, smaller(growth, before)))
        return Succession("restart_revoked", snapshot.collected_at, tuple(sides), tuple(sides))

    def _absorbed(self, snapshot: Snapshot, changes: Changes) -> list[Succession]:
        """Return the growth that was charged before, by a restart that was revoked since."""
        found = []
        for name, before, totals in changes.known if self._with_surplus else ():
            surplus = self._known[name].surplus
            if surplus is not None and covers(totals, before.totals):
                side = SuccessionSide(name, smaller(minus(totals, before.totals), surplus))
                found.append(Succession("restart_revoked", snapshot.collected_at, (side,), (side,)))
        return found

    def _with_uncertainty(
        self, succession: Succession, tags_left: set[str], snapshot: Snapshot
    ) -> Succession:
        """State how many bytes are not charged that would be, had the counters started at zero."""
        if succession.kind == "renamed" and is_certain(succession, tags_left):
            return succession
        counted = total_of(snapshot.totals[side.name] for side in succession.continued)
        if sum(counted) > self._plausible_bytes(snapshot):
            return succession
        taken_over = sum(total_of(side.totals for side in succession.continued))
        return replace(succession, uncertain_bytes=taken_over)

    def _take_over(
        self, successions: Sequence[Succession]
    ) -> tuple[dict[StreamName, Totals], set[StreamName]]:
        """Record successions; return what each stream takes over, and which streams ended."""
        taken_over: dict[StreamName, Totals] = {}
        ended: set[StreamName] = set()
        for succession in successions:
            self.successions.append(succession)
            taken_over.update(succession.continued)
            if succession.kind == "restart_revoked":
                self._revoke(succession)
                continue
            for name, _ in succession.ended:
                ended.add(name)
                self._known[name] = self._known[name]._replace(state="continued")
                self._touched.append(name)
        return taken_over, ended

    def _revoke(self, succession: Succession) -> None:
        """Give streams their totals before the restart back; keep what was charged beyond."""
        for name, part in succession.continued:
            stream = self._known[name]
            left = minus(stream.before_restart or stream.surplus or ZERO, part)
            surplus = left if any(left) else None
            self._known[name] = stream._replace(before_restart=None, surplus=surplus)
            if surplus is None:
                self._with_surplus.discard(name)
            else:
                self._with_surplus.add(name)
            if name in self._restarted:
                self._restarted.discard(name)
                self.restarted_at = None

    # --------------------------------------------------------------------------------- snapshots

    def _apply(
        self, snapshot: Snapshot, changes: Changes, successions: Sequence[Succession]
    ) -> None:
        """Charge what a snapshot adds; a counter that decreased restarts by itself."""
        self.minutes.enter(snapshot.collected_at)
        if not successions and self._returned(snapshot):
            # Streams come back one by one: the process did restart.
            self._settle_restart()
            changes = compare(snapshot, self._known, self._absent, self.restarted_at)
        taken_over, ended = self._take_over(successions)
        reset = []
        special = taken_over.keys() | ended | changes.decreased.keys()
        for name, before, totals in changes.known:
            if name not in special:
                self._step(name, before, snapshot)
                continue
            start, epoch = before.totals, before.reset_epoch
            if name in ended:
                start = ZERO
            elif name in changes.decreased:
                start = Totals(
                    start.uplink if totals.uplink >= start.uplink else 0,
                    start.downlink if totals.downlink >= start.downlink else 0,
                )
                epoch += 1
                reset.append(name)
            start = total_of((start, taken_over.get(name, ZERO)))
            known = self._known[name]._replace(state=before.state, reset_epoch=epoch)
            self._step(name, known._replace(seen_at=before.seen_at, totals=start), snapshot)
        if changes.new:
            twins = duplicates(snapshot.totals, changes.new, self._account)
            for name in changes.new:
                self._apply_new(name, snapshot, taken_over.get(name), is_duplicate=name in twins)
        self._end(snapshot, changes.gone, reset)

    def _apply_restart(self, snapshot: Snapshot, changes: Changes) -> None:
        """The process restarted: every stream continues from zero but those that are unchanged."""
        self.minutes.enter(snapshot.collected_at)
        self._settle_restart()
        for name in (*(stream.name for stream in changes.changed), *changes.gone):
            before = self._known[name]
            self._known[name] = before._replace(
                totals=ZERO, reset_epoch=before.reset_epoch + 1, before_restart=before.totals
            )
            self._touched.append(name)
            self._restarted.add(name)
        self.restarted_at = snapshot.collected_at
        for name, _, _ in changes.changed:
            self._step(name, self._known[name], snapshot)
        for name, before, totals in changes.returned:
            start = before
            if before.totals not in (ZERO, totals):
                start = before._replace(totals=ZERO, reset_epoch=before.reset_epoch + 1)
            self._step(name, start._replace(before_restart=None), snapshot)
        for name in changes.new:
            self._apply_new(name, snapshot, ZERO)
        self._floor = snapshot.totals
        self._end(snapshot, changes.gone, [stream.name for stream in changes.changed])

    def _apply_new(
        self,
        name: StreamName,
        snapshot: Snapshot,
        start: Totals | None,
        *,
        is_duplicate: bool = False,
    ) -> None:
        """Charge a new stream from what it takes over, else from zero, unless it is a duplicate."""
        totals, at = snapshot.totals[name], snapshot.collected_at
        former = self._known.get(name)
        if former is not None and start is None:
            # Its counter continues elsewhere, and is published in addition, or began again.
            if covers(totals, former.totals):
                self._step(name, former._replace(state="duplicate"), snapshot)
            else:
                began = former._replace(
                    totals=ZERO, reset_epoch=former.reset_epoch + 1, state="active"
                )
                self._step(name, began, snapshot)
            return
        state: StreamState = "duplicate" if is_duplicate and start is None else "active"
        if former is not None:
            epoch = former.reset_epoch
        else:
            epoch = 0
            is_baseline = self._previous_at is None and not self._policy.charge_first_snapshot
            self.origins[name] = "baseline" if is_baseline else "new", Checkpoint(at, totals)
            if is_baseline:
                start = totals
        from_at = self.samples_at or self._previous_at or _just_before(at)
        self._step(name, Checkpoint(from_at, start or ZERO, epoch, state=state), snapshot)

    def _ignore(self, ignored: Snapshot, changes: Changes, successor: Snapshot) -> None:
        """Skip snapshots of another clock or out of order; say what they could have meant."""
        counted = total_of(successor.totals[name] for name in changes.decreased)
        uncertain = sum(total_of(changes.decreased.values()))
        if sum(counted) > self._plausible_bytes(successor):
            uncertain = 0
        streams = len(changes.decreased)
        self.gaps.append(
            Gap("disorder", ignored.collected_at, successor.collected_at, streams, uncertain)
        )

    def _end(
        self, snapshot: Snapshot, gone: Collection[StreamName], reset: Sequence[StreamName]
    ) -> None:
        """Note what is gone, the gaps, and that the snapshot is applied."""
        at, previous_at = snapshot.collected_at, self._previous_at
        for name in gone:
            self._known[name] = self._known[name]._replace(seen_at=self.samples_at or at)
            self._absent.add(name)
            self._touched.append(name)
        for name in reset:
            self.restarts[name].add(at)
        if previous_at is not None:
            self._note_gaps(previous_at, at, len(reset))
        elif not self._policy.charge_first_snapshot:
            self.minutes.credit.start(at)
        self._previous_at = at
        if snapshot.totals:
            self.samples_at = at
            self._floor = self._floor or snapshot.totals
        self.applied.append(snapshot)

    def _note_gaps(self, previous_at: datetime, at: datetime, resets: int) -> None:
        if self._is_lost:
            self.gaps.append(Gap("history_lost", previous_at, at))
            self._is_lost = False
        elif (at - previous_at).total_seconds() > self._policy.late_after_seconds:
            self.gaps.append(Gap("late", previous_at, at))
        if resets:
            self.gaps.append(Gap("reset", previous_at, at, streams=resets))
        uncertain = [one for one in self.successions if one.at == at and one.uncertain_bytes]
        if uncertain:
            streams = sum(len(one.continued) for one in uncertain)
            size_bytes = sum(one.uncertain_bytes for one in uncertain)
            self.gaps.append(Gap("uncertain", previous_at, at, streams, size_bytes))

    # ------------------------------------------------------------------------- streams and minutes

    def _step(self, name: StreamName, before: Checkpoint, snapshot: Snapshot) -> None:
        """Move a stream on from `before` to the snapshot, and note the bytes between."""
        at, totals = snapshot.collected_at, snapshot.totals[name]
        seen_at, start, epoch, before_restart, state, surplus = before
        if name in self._absent:
            self._absent.remove(name)
        elif name in self._known:
            seen_at = self.samples_at or seen_at
        self._known[name] = Checkpoint(at, totals, epoch, before_restart, state, surplus)
        self._touched.append(name)
        if totals != start and state != "ignored":
            step = UsageRecord(name, self.minutes.current, epoch, seen_at, at, start, totals)
            self.minutes.add(step, state)

    def _settle_restart(self) -> None:
        """Forget the totals before the last restart: it can't be revoked any more."""
        for name in self._restarted:
            self._known[name] = self._known[name]._replace(before_restart=None)
            self._touched.append(name)
        self._restarted.clear()

    def _account(self, name: StreamName) -> str:
        """Return what a stream's bytes belong to: its account, or its uuid while it has none."""
        return self._accounts.get(name.sample_uuid, name.sample_uuid)

    def _plausible_bytes(self, snapshot: Snapshot) -> int:
        return plausible_bytes(self._policy, self._previous_at, snapshot.collected_at)


def _just_before(at: datetime) -> datetime:
    """Return where the record of a charged first snapshot begins: nothing is known before it.

    Records of a stream are told apart by where they begin, and the next one begins at `at`.
    """
    return at - min(timedelta.resolution, at - EARLIEST)
