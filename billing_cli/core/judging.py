"""How each snapshot of a walk applies: the restart rule with what the walk knows by then."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from billing_cli.core.restart import (
    Verdict,
    former_names,
    judge,
    judge_names,
    lost_behind,
    may_be_earlier,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from billing_cli.core.changes import Changes
    from billing_cli.core.model import Snapshot, StreamName, Succession, Totals
    from billing_cli.core.stream_states import StreamStates


class Outlook(NamedTuple):
    """What is known of the snapshots after those at hand: see `core.restart.judge`."""

    decide_now: bool
    is_cut: bool
    has_more: bool


class Judging:
    """Judges a walk's snapshots; keeps the totals that are older than those of any to come.

    `unsure` are the streams whose restart is none, if their totals of before the walk say so.
    """

    def __init__(
        self,
        streams: StreamStates,
        earlier: Mapping[StreamName, Totals],
        account_of: Callable[[StreamName], str],
    ) -> None:
        self.unsure: set[StreamName] = set()
        self._streams = streams
        self._account = account_of
        self._floor = {name: checkpoint.totals for name, checkpoint in streams.known.items()}
        self._earlier = dict(earlier)

    def judge(
        self,
        changes: Changes,
        successions: Sequence[Succession],
        history: Sequence[Snapshot],
        outlook: Outlook,
    ) -> tuple[Verdict, Mapping[StreamName, Totals]]:
        """Decide whether and how the first one of several snapshots applies; say what it lost."""
        lost, account_of = changes.decreased, self._account
        if lost:
            verdict = judge(
                history,
                lost,
                self._floor,
                changes.grown,
                account_of,
                decide_now=outlook.decide_now,
                has_more=outlook.has_more,
                is_cut=outlook.is_cut,
                earlier=self._earlier,
            )
            is_restart = verdict.kind in {"restart", "single"}
            if is_restart and may_be_earlier(history, lost, account_of, is_cut=outlook.is_cut):
                self.unsure.update(lost)
            return verdict, lost
        if changes.gone:
            known = self._streams.known
            former = former_names(changes, known, self._streams.absent)
            lost = lost_behind(former, changes, successions, known, account_of)
        if not lost:
            return Verdict("single"), lost
        # Names that were never read before are hardly those of an older reading: no need to wait.
        accounts = {account_of(name) for name in lost}
        is_new = not any(name in known and account_of(name) in accounts for name in former)
        verdict = judge_names(
            history,
            lost,
            former,
            account_of,
            decide_now=outlook.decide_now or is_new,
            has_more=outlook.has_more and not is_new,
        )
        return verdict, lost

    def begun(self, totals: Mapping[StreamName, Totals]) -> None:
        """Note that streams began: they show nothing of before."""
        self._floor.update(totals)

    def reset(self, name: StreamName, totals: Totals) -> None:
        """Note that a stream's counters restarted by themselves: they show nothing of before."""
        self._floor[name] = totals
        self._earlier.pop(name, None)

    def restarted(self, snapshot: Snapshot) -> None:
        """Note that the process restarted: its counters show nothing of before."""
        self._floor, self._earlier = dict(snapshot.totals), {}
