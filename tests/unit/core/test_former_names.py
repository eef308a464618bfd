"""Names that return in a rollback: which of them count from zero."""

from __future__ import annotations

import pytest

from billing_cli.core.changes import Changes
from billing_cli.core.former_names import names_from_zero, restarted_accounts, shared_out
from billing_cli.core.model import StreamName, Succession, SuccessionSide, Totals
from tests.unit.core.stories import (
    ALICE,
    ALICE_TCP,
    BOB,
    BOB_MERGED,
    MERGED,
    Counts,
    account_of,
    after_noon,
    known_at,
    snapshot,
    totals_of,
)

HTTP, FELL, COPY, NEW, TWIN = (
    ALICE._replace(inbound_tag=tag) for tag in ("http", "fell", "copy", "new", "twin")
)


def renamed(name: StreamName, kind: str = "renamed") -> Succession:
    """Return a succession that a stream continues."""
    side = SuccessionSide(name, Totals(1, 1))
    return Succession(kind, after_noon("01:00"), (side,), (side,))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("totals", "is_shared"),
    [
        pytest.param({ALICE: (100, 200), ALICE_TCP: (50, 60)}, True, id="each of its own"),
        pytest.param({ALICE: (100, 200), ALICE_TCP: (100, 200)}, False, id="the same twice"),
        pytest.param(
            {ALICE: (150, 260), ALICE_TCP: (100, 200), MERGED: (50, 60)}, False, id="a sum"
        ),
    ],
)
def test_names_share_what_is_gone_unless_one_counts_all_of_it(
    totals: dict[StreamName, Counts], *, is_shared: bool
) -> None:
    """Then it counts the same bytes. Revoked restarts share nothing, nor do other accounts."""
    now = snapshot("01:00", {**totals, BOB: (7, 7)})
    accounts = {account_of(ALICE)} if is_shared else set()
    assert shared_out([renamed(ALICE)], now, account_of) == accounts
    assert shared_out([renamed(BOB, "restart_revoked")], now, account_of) == set()


@pytest.mark.parametrize(
    ("former", "accounts"),
    [
        pytest.param({ALICE: (5, 5), ALICE_TCP: (6, 6)}, set(), id="none below"),
        pytest.param({ALICE: (4, 5), ALICE_TCP: (6, 6)}, {account_of(MERGED)}, id="one below"),
        pytest.param({}, set(), id="none returns"),
    ],
)
def test_former_names_below_their_totals_show_that_counters_restarted(
    former: dict[StreamName, Counts], accounts: set[str]
) -> None:
    """Those of the accounts that are charged of what is gone."""
    known = {
        ALICE: known_at((5, 5)),
        ALICE_TCP: known_at((5, 5)),
        MERGED: known_at((9, 9)),
        BOB: known_at((9, 9), state="duplicate"),
    }
    gone = totals_of({MERGED: (9, 9), BOB: (9, 9)})
    changes = Changes(new=totals_of({**former, BOB_MERGED: (1, 1)}), gone=gone)
    returned = totals_of(former)
    now = snapshot("01:00", {name: Totals(*totals) for name, totals in changes.new.items()})
    assert restarted_accounts(returned, changes, now, set(), known, account_of) == accounts


@pytest.mark.parametrize(
    ("now", "had", "is_restarted"),
    [
        pytest.param({ALICE: (8, 9)}, (9, 9), True, id="less in one direction"),
        pytest.param({ALICE: (9, 9)}, (9, 9), False, id="as much"),
        pytest.param({ALICE: (7, 7), ALICE_TCP: (2, 1)}, (9, 9), True, id="less together"),
        pytest.param({ALICE: (7, 7), ALICE_TCP: (2, 2)}, (9, 9), False, id="as much together"),
        pytest.param({ALICE: (8, 8), HTTP: (8, 8)}, (9, 9), False, id="another has as much"),
        pytest.param({ALICE: (8, 8), HTTP: (9, 7)}, (9, 9), True, id="another has less"),
        pytest.param({ALICE: (8, 8), BOB_MERGED: (9, 9)}, (9, 9), True, id="another account has"),
        pytest.param({ALICE: (8, 8), COPY: (9, 9)}, (9, 9), True, id="one that is not charged has"),
        pytest.param({ALICE: (8, 8), FELL: (9, 9)}, (9, 9), True, id="one that fell has"),
        pytest.param({ALICE: (8, 8), NEW: (9, 9)}, (9, 9), False, id="one that is new has"),
        pytest.param({ALICE: (8, 8), TWIN: (8, 8)}, (9, 9), True, id="its copy has"),
        pytest.param({ALICE: (8, 8), BOB: (1, 1)}, (9, 9), False, id="no counter fell"),
        pytest.param({ALICE: (8, 8)}, None, False, id="none is gone"),
        pytest.param({NEW: (1, 1)}, (9, 9), False, id="no former name"),
    ],
)
def test_former_names_count_bytes_that_no_other_counter_has(
    now: dict[StreamName, Counts], had: Counts | None, *, is_restarted: bool
) -> None:
    """They began again where they count less than what is gone, and another counter fell."""
    known = {
        ALICE: known_at((5, 5), state="continued"),
        ALICE_TCP: known_at((1, 1), state="continued"),
        HTTP: known_at((0, 0)),
        FELL: known_at((90, 90)),
        COPY: known_at((9, 9), state="duplicate"),
        BOB: known_at((2, 2)),
        MERGED: known_at((9, 9)),
    }
    former = {name for name in now if name in known and known[name].state == "continued"}
    changes = Changes(
        new=totals_of({name: now[name] for name in now if name in former | {NEW, TWIN}}),
        gone=totals_of({MERGED: had} if had is not None else {}),
        decreased=totals_of({} if BOB in now else {FELL: (90, 90)}),
    )
    returned = {name: totals for name, totals in changes.new.items() if name in former}
    found = restarted_accounts(returned, changes, snapshot("01:00", now), {TWIN}, known, account_of)
    assert found == ({account_of(ALICE)} if is_restarted else set())


def test_a_copy_of_a_counter_that_fell_does_not_count_from_zero() -> None:
    """The restart shows in both; only one of them is charged."""
    known = {
        ALICE: known_at((5, 5), state="continued"),
        FELL: known_at((90, 90)),
        MERGED: known_at((9, 9)),
    }
    now = {ALICE: (8, 8), FELL: (8, 8)}
    changes = Changes(
        new=totals_of({ALICE: (8, 8)}),
        gone=totals_of({MERGED: (9, 9)}),
        decreased=totals_of({FELL: (90, 90)}),
    )
    for twins in (set(), {ALICE}):
        found = names_from_zero(changes, snapshot("01:00", now), [], twins, known, account_of)
        assert found == {ALICE} - twins
