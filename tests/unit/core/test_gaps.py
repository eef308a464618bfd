"""Gaps: when bytes are in doubt, of how many streams, and how many."""

from __future__ import annotations

from billing_cli.core.gaps import Gaps
from billing_cli.core.model import DeltaPolicy, Gap, Succession, SuccessionSide, Totals
from tests.unit.core.stories import ALICE, ALICE_TCP, BOB, after_noon, alice, snapshot

# A kilobyte a second.
POLICY = DeltaPolicy(account_rate_bits_per_second=8_000, burst_hours=1)
AT, NOW = after_noon("00:00"), after_noon("01:00")


def test_ignored_snapshots_put_what_was_lost_in_doubt_where_it_can_have_flowed_since() -> None:
    """They may have been a restart; not where more was counted than can have moved."""
    lost = {ALICE: Totals(10, 20), BOB: Totals(1, 2)}
    for counted, uncertain in ((60_000, 33), (60_001, 0)):
        gaps = Gaps(POLICY, AT, is_lost=False)
        gaps.ignored(alice("00:30", 1), lost, snapshot("01:00", {ALICE: (counted, 0)}))
        assert gaps.found == [Gap("disorder", after_noon("00:30"), NOW, 2, uncertain)]


def succession(at: str, uncertain_bytes: int) -> Succession:
    """Return a succession that two streams continue."""
    sides = (SuccessionSide(ALICE, Totals(1, 1)), SuccessionSide(ALICE_TCP, Totals(1, 1)))
    return Succession("renamed", after_noon(at), sides[:1], sides, uncertain_bytes)


def test_what_is_uncertain_in_a_snapshot_is_one_gap() -> None:
    """Of its successions that are not certain, and of accounts whose names could go on."""
    for successions, uncertain, streams, size_bytes in (
        ([succession("01:00", 7)], {}, 2, 7),
        ([], {"account": 5, "other": 6}, 2, 11),
        ([succession("01:00", 7), succession("01:00", 8)], {"account": 5}, 5, 20),
        ([succession("01:00", 7), succession("00:30", 8), succession("01:00", 0)], {}, 2, 7),
    ):
        gaps = Gaps(POLICY, AT, is_lost=False)
        gaps.applied(NOW, 0, successions, uncertain)
        assert gaps.found == [Gap("uncertain", AT, NOW, streams, size_bytes)]


def test_certain_successions_and_a_first_snapshot_leave_no_gap() -> None:
    """Nothing is known before the first one."""
    gaps = Gaps(POLICY, AT, is_lost=False)
    gaps.applied(NOW, 0, [succession("01:00", 0)], {})
    first = Gaps(POLICY, None, is_lost=False)
    first.applied(NOW, 1, [succession("01:00", 7)], {"account": 5})
    assert gaps.found == first.found == []
    assert first.previous_at == NOW
