"""The model: what it takes for right, and that what is wrong can be seen again."""

from __future__ import annotations

from contextlib import nullcontext
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest
from hypothesis import Phase

from billing_cli.core.times import MINUTE
from billing_cli.simulator.publication import as_counted, both, merged, retagged, with_uuids
from tests.torture import errands, model, neighbour
from tests.torture.findings import WrongBooksError
from tests.torture.ground import START, opened_ground

if TYPE_CHECKING:
    from tests.torture.arena import Arena
    from tests.torture.ground import Ground


def test_a_seed_takes_the_same_steps_again(arena: Arena, monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps follow from the seed alone, and find nothing wrong."""
    monkeypatch.setattr(model, "STEPS", 10)
    taken = []
    for _ in range(2):
        assert all(step.is_clean for step in model.attack(arena, 21, 5))
        taken.append(dict(model.Model.taken))
    assert taken[0] == taken[1]


def test_what_is_wrong_is_told_with_its_steps_and_the_command_that_repeats_them(
    arena: Arena, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A price that is off by a thousandth of 1e-9 a byte is found, and found again."""
    monkeypatch.setattr(model, "PHASES", (Phase.generate,))
    monkeypatch.setattr("tests.torture.ground.Ground.configured_price", _dearer)
    first = model.attack(arena, 7, 1000)[0]
    assert first.wrong_nanos > 0
    told = capsys.readouterr().err
    assert "state.fleet_begins(number=" in told
    assert "again: python -m tests.torture --only model --seed 7 --rounds 1000\n" in told
    assert model.attack(arena, 7, 1000)[0] == first


@pytest.mark.parametrize("factor", [0, 2])
def test_bytes_that_are_lost_or_charged_twice_are_found(arena: Arena, factor: int) -> None:
    """What the counters tell is judged by what flowed, which no counter is asked for."""
    with opened_ground(arena, seed=2) as ground:
        node = ground.fleet.add_node("jp-1")
        stream = node.add_stream(ground.add_user().uuid, "x", idle=True)
        for minute in range(5):
            if minute == 2:
                stream.uplink_total += 1_000 * factor
                stream.log.extend((node.process.polls, 0, 1_000, 0))
            ground.elapse(60, 60)
            ground.work(errands.errand(ground, "collect"))
        with pytest.raises(WrongBooksError, match=r"at most|at least") as found:
            errands.settle(ground)
    findings = found.value.findings
    assert (findings.lost_bytes, findings.doubled_bytes) == (
        (1_000, 0) if factor == 0 else (0, 1_000)
    )


def test_history_that_comes_late_is_charged_at_most_as_it_flowed(arena: Arena) -> None:
    """Snapshots that were hidden tell of bytes before a restart, which are lost without them."""
    with opened_ground(arena, seed=3) as ground:
        node = ground.fleet.add_node("jp-1")
        stream = node.add_stream(ground.add_user().uuid, "x", idle=True)
        ground.elapse(151, 60)
        ground.work(errands.errand(ground, "collect"))
        node.flow(stream, 90, 100)
        ground.elapse(120, 60)
        node.restart_xray(ground.now)
        node.withhold(START + 3 * MINUTE, ground.now, ground.now + 5 * MINUTE)
        node.flow(stream, 45, 50)
        ground.elapse(180, 60)
        ground.work(errands.errand(ground, "collect"))
        ground.check()
        errands.settle(ground)


def test_a_restart_that_looked_like_one_reset_counter_is_corrected_by_late_history(
    arena: Arena,
) -> None:
    """After it more came down than ever before, so `collect` saw the uplink alone begin again."""
    with opened_ground(arena, seed=4) as ground:
        node = ground.fleet.add_node("jp-1")
        stream = node.add_stream(ground.add_user().uuid, "x", idle=True)
        ground.elapse(61, 60)
        node.flow(stream, 1_000, 100)
        ground.elapse(150, 60)
        ground.work(errands.errand(ground, "collect"))
        since = ground.now
        node.flow(stream, 500, 50)
        ground.elapse(60, 60)
        node.restart_xray(ground.now)
        node.withhold(since, ground.now, ground.now + 5 * MINUTE)
        node.flow(stream, 800, 5_000)
        ground.elapse(180, 60)
        ground.work(errands.errand(ground, "collect"))
        ground.elapse(180, 60)
        errands.settle(ground)


def test_a_stream_left_out_while_its_account_is_created_again_goes_on_from_before(
    arena: Arena,
) -> None:
    """What it moved before the deletion is nowhere any more, and is not asked for."""
    with opened_ground(arena, seed=5) as ground:
        node = ground.fleet.add_node("jp-1")
        user = ground.add_user()
        stream = node.add_stream(user.uuid, "x", idle=True)
        ground.elapse(61, 60)
        node.flow(stream, 1_000, 1_000)
        node.hide_stream(stream, START + 3 * MINUTE, START + 6 * MINUTE)
        ground.elapse(150, 60)
        ground.work(errands.errand(ground, "collect"))
        neighbour.is_born_again(ground, user, 0)
        node.flow(stream, 10, 10)
        ground.elapse(240, 60)
        errands.settle(ground)


def test_what_a_restart_that_was_none_charged_before_a_deletion_is_not_asked_for(
    arena: Arena, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The surplus went with the account's rows, and growth since then absorbs it."""
    monkeypatch.setattr(model.Model, "arena", arena, raising=False)
    played = model.Model()
    played.fleet_begins(number=0)
    played.several_run_at_once(kinds=["collect", "collect"], number=0)
    played.a_timer_collects(number=0)
    played.a_timer_collects(number=8)
    played.exporter_acts(number=10, what="splice")
    played.a_timer_collects(number=2)
    played.exporter_acts(number=2, what="clock step")
    played.exporter_acts(number=2, what="upgrade")
    played.a_timer_collects(number=6)
    played.neighbour_acts(number=2, what="renewal")
    played.neighbour_acts(number=2, what="reborn")
    played.teardown()


@pytest.mark.parametrize("is_overlooked", [False, True], ids=["told", "overlooked"])
def test_a_row_of_before_a_deletion_that_undoes_charges_must_be_told(
    arena: Arena, monkeypatch: pytest.MonkeyPatch, *, is_overlooked: bool
) -> None:
    """A service read it, and writes it back when the account is there again and was charged."""
    if is_overlooked:
        monkeypatch.setattr("billing_cli.core.balances.given_back", lambda *_: None)
    with opened_ground(arena, seed=8) as ground:
        node = ground.fleet.add_node("jp-1")
        user = ground.add_user()
        stream = node.add_stream(user.uuid, "x", idle=True)
        ground.elapse(61, 60)
        node.flow(stream, 1_000, 1_000)
        ground.elapse(150, 60)
        ground.work(errands.errand(ground, "collect"))
        stream.idle = False
        with nullcontext() if not is_overlooked else pytest.raises(WrongBooksError, match="a row"):
            neighbour.is_born_again(ground, user, 2)
            ground.check()


def test_usage_of_a_deleted_account_is_judged_by_either_of_its_uuids(arena: Arena) -> None:
    """It is counted under the proxy uuid, and waits for an account under the account's uuid."""
    with opened_ground(arena, seed=6) as ground:
        node = ground.fleet.add_node("jp-1")
        user = ground.add_user()
        stream = node.add_stream(user.proxy_uuid, "x", idle=True)
        ground.elapse(61, 60)
        node.naming = with_uuids({user.proxy_uuid: user.uuid})
        ground.elapse(150, 60)
        ground.work(errands.errand(ground, "collect"))
        ground.delete(user)
        node.flow(stream, 10, 10)
        ground.elapse(150, 60)
        ground.work(errands.errand(ground, "collect"))
        ground.check()


def test_a_deleted_account_under_its_other_uuid_again_is_judged_as_a_new_user(arena: Arena) -> None:
    """Nobody knows any more that both were its own: what it had counted waits once more."""
    with opened_ground(arena, seed=7) as ground:
        node = ground.fleet.add_node("jp-1")
        user = ground.add_user()
        stream = node.add_stream(user.proxy_uuid, "x", idle=True)
        node.naming = with_uuids({user.proxy_uuid: user.uuid})
        ground.elapse(61, 60)
        node.flow(stream, 1_000, 1_000)
        ground.elapse(150, 60)
        ground.work(errands.errand(ground, "collect"))
        ground.delete(user)
        node.flow(stream, 10, 10)
        ground.elapse(240, 60)
        ground.work(errands.errand(ground, "collect"))
        node.naming = as_counted
        ground.elapse(150, 60)
        ground.work(errands.errand(ground, "collect"))
        ground.check()


def test_a_proxy_uuid_that_was_renewed_unread_belongs_to_nobody(arena: Arena) -> None:
    """What it counted waits for ever; under the account's uuid the counter begins at zero."""
    with opened_ground(arena, seed=7) as ground:
        node = ground.fleet.add_node("jp-1")
        user = ground.add_user()
        stream = node.add_stream(user.proxy_uuid, "x", idle=True)
        ground.elapse(61, 60)
        node.flow(stream, 1_000, 1_000)
        ground.elapse(150, 60)
        node.naming = with_uuids({user.proxy_uuid: user.uuid})
        ground.fleet.renew_proxy(user)
        ground.save(user)
        ground.elapse(150, 60)
        errands.settle(ground)


def test_former_names_that_return_above_their_totals_may_go_on_from_them(arena: Arena) -> None:
    """They began at zero under other names, which nobody noticed: the smaller amount is charged."""
    with opened_ground(arena, seed=7) as ground:
        node = ground.fleet.add_node("jp-1")
        user = ground.add_user()
        stream = node.add_stream(user.proxy_uuid, "x", idle=True)
        ground.elapse(61, 60)
        for naming, size_bytes in (
            (as_counted, 1_000),
            (with_uuids({user.proxy_uuid: user.uuid}), 500),
            (as_counted, 600),
        ):
            if naming is not as_counted:
                node.restart_xray(ground.now)
            node.naming = naming
            node.flow(stream, size_bytes, size_bytes)
            ground.elapse(150, 60)
            ground.work(errands.errand(ground, "collect"))
        errands.settle(ground)


def test_a_duplicate_that_gets_another_name_with_its_original_is_charged_once(arena: Arena) -> None:
    """It stays held through an upgrade and the way back."""
    both_renamed = both(retagged({"x": "y"}), retagged({"x": "z"}))
    with opened_ground(arena, seed=7) as ground:
        node = ground.fleet.add_node("jp-1")
        stream = node.add_stream(ground.add_user().uuid, "x", idle=True)
        ground.elapse(61, 60)
        for naming in (
            as_counted,
            both(as_counted, merged),
            both_renamed,
            both(as_counted, merged),
        ):
            node.naming = naming
            node.flow(stream, 1_000, 1_000)
            ground.elapse(150, 60)
            ground.work(errands.errand(ground, "collect"))
        errands.settle(ground)


def _dearer(ground: Ground) -> Decimal:
    return ground.price + Decimal("1e-12")


def test_later_readings_before_a_restart_in_late_history_may_be_charged_by_reconcile(
    arena: Arena,
) -> None:
    """A clock was set back over the restart; that reads like two restarts, as in a crash loop."""
    with opened_ground(arena, seed=6) as ground:
        node = ground.fleet.add_node("jp-1")
        node.takes_older_stamps = node.truncates_stamps = True
        stream = node.add_stream(ground.add_user().uuid, "x", idle=True)
        ground.elapse(61, 60)
        node.flow(stream, 10_000, 10_000)
        ground.elapse(120, 60)
        ground.work(errands.errand(ground, "collect"))
        since = ground.now
        ground.elapse(60, 60)
        node.restart_xray(ground.now)
        for _ in range(6):
            node.flow(stream, 100, 100)
            ground.elapse(60, 60)
        node.withhold(since, ground.now, ground.now + 9 * MINUTE)
        node.flow(stream, 100, 100)
        ground.elapse(240, 60)
        ground.work(errands.errand(ground, "collect"))
        node.clock_error = -10 * MINUTE
        for _ in range(2):
            node.flow(stream, 300, 300)
            ground.elapse(60, 60)
        node.clock_error = 0 * MINUTE
        node.flow(stream, 10, 10)
        ground.elapse(600, 60)
        errands.settle(ground)
