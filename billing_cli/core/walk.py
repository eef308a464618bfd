"""Applying a node's snapshots one after another."""

from __future__ import annotations

from collections import defaultdict
from itertools import islice
from typing import TYPE_CHECKING

from billing_cli.core.changes import (
    account_changes,
    begin_again,
    compare,
    from_zero,
)
from billing_cli.core.former_names import names_from_zero
from billing_cli.core.gaps import Gaps
from billing_cli.core.judging import Judging, Outlook
from billing_cli.core.minutes import Minutes
from billing_cli.core.model import Checkpoint, StreamName, Succession, Totals, UsageRecord
from billing_cli.core.restart import MOST_SUCCESSORS
from billing_cli.core.stream_states import StreamStates
from billing_cli.core.succession import (
    ZERO,
    covers,
    duplicates,
    restarted_from,
    succession_of,
    taken_over,
    total_of,
    with_uncertainty,
)
from billing_cli.core.times import just_before, minute_of
from billing_cli.core.uncharged import uncharged_successions

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime

    from billing_cli.core.changes import Changes
    from billing_cli.core.deltas import NodeState
    from billing_cli.core.model import DeltaPolicy, Snapshot, StreamOrigin, StreamState


class Walk:
    """One pass over a node's snapshots; `core.deltas.advance` reads the outcome.

    `apply_all` goes through them; everything else serves a single snapshot.
    """

    def __init__(
        self, node: NodeState, accounts: Mapping[str, str], policy: DeltaPolicy, *, is_lost: bool
    ) -> None:
        self.samples_at = node.samples_at
        self.restarted_at = node.restarted_at
        self._accounts = accounts
        self.minutes = Minutes(policy, node.credit, self._account)
        self.applied: list[Snapshot] = []
        self.origins: dict[StreamName, tuple[StreamOrigin, Checkpoint]] = {}
        self.gaps = Gaps(policy, node.watermark, is_lost=is_lost)
        self.successions: list[Succession] = []
        self.restarts: defaultdict[StreamName, dict[datetime, Totals]] = defaultdict(dict)
        self._is_first = node.watermark is None or node.awaits_baseline
        self._policy = policy
        self._streams = StreamStates(node.streams, node.samples_at)
        self._judging = Judging(self._streams, node.earlier, self._account)

    def apply_all(
        self, fresh: Sequence[Snapshot], end: int, *, decide_now: bool, is_cut: bool
    ) -> int:
        """Apply `fresh[:end]`; return the place before which it stopped to wait, or `end`.

        The snapshots from `end` on are known as successors, and not applied. Where the history
        `is_cut`, the next step sees more of it, but the first minute is decided in this one.
        """
        place = 0
        while place < end:
            snapshot = fresh[place]
            changes = self._compare(snapshot)
            successions = self._successions(snapshot, changes)
            history = [snapshot, *_successors(fresh, place)]
            is_later = minute_of(snapshot.collected_at) > minute_of(fresh[0].collected_at)
            outlook = Outlook(decide_now, is_cut, has_more=is_cut and is_later)
            verdict, lost = self._judging.judge(changes, successions, history, outlook)
            if verdict.kind == "wait":
                break
            if verdict.kind == "disorder":
                back = history[verdict.ignored]
                self.gaps.ignored(snapshot, lost, back)
                while place < end and fresh[place].collected_at < back.collected_at:
                    place += 1
                continue
            if verdict.kind == "restart" and not changes.is_present_decreased:
                # It restarted while the streams were absent that return below their totals.
                self._streams.confirm_restart()
                self.restarted_at = snapshot.collected_at
                continue
            if verdict.kind == "restart":
                self._apply_restart(snapshot, changes)
            else:
                self._apply(snapshot, changes, successions)
            place += 1
        self.minutes.close()
        return place

    @property
    def unsure(self) -> set[StreamName]:
        """The streams whose restart is none, if their totals of before the walk say so."""
        return self._judging.unsure

    @property
    def resets(self) -> int:
        """How often a stream's counters restarted."""
        return sum(map(len, self.restarts.values()))

    def checkpoints(self) -> dict[StreamName, Checkpoint]:
        """Return the checkpoints of all streams that were changed."""
        return self._streams.changed(self.samples_at)

    def _account(self, name: StreamName) -> str:
        """Return whose a stream's bytes are: its account's, or its uuid's without one."""
        return self._accounts.get(name.sample_uuid, name.sample_uuid)

    def _compare(self, snapshot: Snapshot) -> Changes:
        known = self._streams.known
        changes = compare(snapshot, known, self._streams.absent, self.restarted_at)
        if changes.returned and (changes.gone or changes.decreased):
            begin_again(changes, known, self._account)
        return changes

    def _successions(self, snapshot: Snapshot, changes: Changes) -> list[Succession]:
        """Return the successions in a snapshot; what they explain is no decrease any more."""
        known, at = self._streams.known, snapshot.collected_at
        found: list[Succession] = []
        uncharged: list[Succession] = []
        if changes.gone and changes.new:
            uncharged = uncharged_successions(changes, known, self._account, at)
        if self.samples_at is not None and (
            changes.gone or (changes.decreased and (changes.new or changes.returned))
        ):
            for change in account_changes(changes, known, self._account, taken_over(uncharged)):
                succession = succession_of(change, at)
                if succession is not None:
                    found.append(succession)
        found += self._streams.regained(snapshot, changes, found)
        for side in (side for succession in found for side in succession.ended):
            changes.decreased.pop(side.name, None)
        found += uncharged
        if not found:
            return []
        return with_uncertainty(found, snapshot.totals, self.gaps.plausible_bytes(at))

    def _take_over(
        self, successions: Sequence[Succession]
    ) -> tuple[dict[StreamName, Totals], set[StreamName]]:
        """Record successions; return what each stream takes over, and which streams ended."""
        ended: set[StreamName] = set()
        for succession in successions:
            self.successions.append(succession)
            if succession.kind == "restart_revoked":
                if self._streams.revoke(succession):
                    self.restarted_at = None
                continue
            ended.update(side.name for side in succession.ended)
            self._streams.end(succession)
        return taken_over(successions), ended

    def _apply(
        self, snapshot: Snapshot, changes: Changes, successions: Sequence[Succession]
    ) -> None:
        """Charge what a snapshot adds; a counter that decreased restarts by itself."""
        self.minutes.enter(snapshot.collected_at)
        if not successions and self._streams.is_passed(snapshot):
            # Streams come back one by one: the process did restart.
            self._streams.confirm_restart()
            changes = self._compare(snapshot)
        self._streams.begin_again(changes.returned)
        taken, ended = self._take_over(successions)
        reset: dict[StreamName, Totals] = {}
        special = taken.keys() | ended | changes.decreased.keys()
        for name, before, totals in changes.known:
            if before.totals == ZERO:
                # It shows as little of before as a stream that was not there.
                self._judging.begun({name: totals})
            if name not in special:
                self._step(name, before, snapshot)
                continue
            start, epoch = before.totals, before.reset_epoch
            if name in ended:
                start = ZERO
            elif name in changes.decreased:
                start = restarted_from(start, totals)
                epoch += 1
                reset[name] = start
                self._judging.reset(name, totals)
            start = total_of((start, taken.get(name, ZERO)))
            known = self._streams.known[name]._replace(state=before.state, reset_epoch=epoch)
            self._step(name, known._replace(seen_at=before.seen_at, totals=start), snapshot)
        if changes.new:
            twins = duplicates(snapshot.totals, changes.new, self._account)
            begun = names_from_zero(
                changes, snapshot, successions, twins, self._streams.known, self._account
            )
            states = {
                side.name: succession.state
                for succession in successions
                for side in succession.continued
            }
            for name in changes.new:
                since = taken.get(name, ZERO if name in begun else None)
                state = states.get(name, "duplicate" if name in twins else "active")
                self._apply_new(name, snapshot, since, state)
            self._judging.begun(changes.new)
        self._end(snapshot, changes, reset)

    def _apply_restart(self, snapshot: Snapshot, changes: Changes) -> None:
        """The process restarted: every stream continues from zero but those that are unchanged."""
        self.minutes.enter(snapshot.collected_at)
        self._streams.confirm_restart()
        self._streams.restart((*(stream.name for stream in changes.changed), *changes.gone))
        self.restarted_at = snapshot.collected_at
        for name, _, _ in changes.changed:
            self._step(name, self._streams.known[name], snapshot)
        for name, before, totals in changes.returned:
            start = before if before.totals == totals else from_zero(before)
            self._step(name, start._replace(before_restart=None), snapshot)
        for name in changes.new:
            self._apply_new(name, snapshot, ZERO)
        self._judging.restarted(snapshot)
        self._end(snapshot, changes, {stream.name: ZERO for stream in changes.changed})

    def _apply_new(
        self,
        name: StreamName,
        snapshot: Snapshot,
        start: Totals | None,
        state: StreamState = "active",
    ) -> None:
        """Charge an active new stream from what it takes over, else from zero."""
        totals, at = snapshot.totals[name], snapshot.collected_at
        former = self._streams.known.get(name)
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
        if former is not None:
            epoch = former.reset_epoch
        else:
            epoch = 0
            is_baseline = self._is_first and not self._policy.charge_first_snapshot
            self.origins[name] = "baseline" if is_baseline else "new", Checkpoint(at, totals)
            if is_baseline:
                start = totals
        from_at = self.samples_at or self.gaps.previous_at or just_before(at)
        self._step(name, Checkpoint(from_at, start or ZERO, epoch, state=state), snapshot)

    def _end(
        self, snapshot: Snapshot, changes: Changes, reset: Mapping[StreamName, Totals]
    ) -> None:
        """Note what is gone, which streams were reset, the gaps, and that it is applied."""
        at = snapshot.collected_at
        self._streams.leave(changes.gone, self.samples_at or at)
        self._streams.hand_over()
        for name in reset:
            self.restarts[name][at] = reset[name]
        if self._is_first and not self._policy.charge_first_snapshot:
            self.minutes.credit.start(at)
        if snapshot.totals or (self.gaps.previous_at is None and not snapshot.rejected):
            # Without a usable sample the counters' begin is not known: the next one is the first.
            self.samples_at, self._is_first = at, False
        self.gaps.applied(at, len(reset), self.successions, changes.uncertain)
        self.applied.append(snapshot)

    def _step(self, name: StreamName, before: Checkpoint, snapshot: Snapshot) -> None:
        """Move a stream on from `before` to the snapshot, and note the bytes between."""
        at, totals = snapshot.collected_at, snapshot.totals[name]
        seen_at, start, epoch, before_restart, state, surplus = before
        streams = self._streams
        if name in streams.absent:
            streams.absent.remove(name)
        elif name in streams.known:
            seen_at = self.samples_at or seen_at
        streams.set(name, Checkpoint(at, totals, epoch, before_restart, state, surplus))
        if totals != start and state != "ignored":
            step = UsageRecord(name, self.minutes.current, epoch, seen_at, at, start, totals)
            self.minutes.add(step, state)


def _successors(snapshots: Sequence[Snapshot], place: int) -> Iterator[Snapshot]:
    """Yield the next snapshots; one without samples shows nothing of the counters."""
    later = (snapshots[at] for at in range(place + 1, len(snapshots)))
    return islice((snapshot for snapshot in later if snapshot.totals), MOST_SUCCESSORS)
