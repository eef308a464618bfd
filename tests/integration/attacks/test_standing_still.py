"""A decrease within a minute that an hour of snapshots decides, where a step takes in less."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from billing_cli.jobs import larger_shares
from billing_cli.jobs.catch_up import catch_up
from billing_cli.jobs.collect import collect
from billing_cli.jobs.context import FetchPolicy
from tests.integration.attacks.hostile import HOUR, MINUTE, START, Attack

if TYPE_CHECKING:
    from datetime import datetime

MB = 10**6
USERS = 10
JOBS = pytest.mark.parametrize("job", [collect, catch_up], ids=lambda job: job.__name__)


@JOBS
@pytest.mark.parametrize("share", [20, 200, 1_000, 100_000])
def test_a_small_share_decides_as_the_whole_history_does(
    attack: Attack, job: Any, share: int
) -> None:
    """The process restarts between two snapshots of a minute, and then is idle."""
    totals = {70: 40 * MB, 85: 40 * MB, 100: 5 * MB}
    end = START + 2 * HOUR
    publish(attack, "jp-1", totals, 6 * MB, end)
    attack.fetching = FetchPolicy(page_limit=50, step_max_samples=share)
    for minute in range(3):
        attack.run(end + minute * MINUTE, job)
    assert attack.charged()[0] == USERS * (37 * MB + 6 * MB)


@JOBS
def test_other_sources_go_on_beside_one_that_stands_still(attack: Attack, job: Any) -> None:
    """Every source is current at the end, whatever its share of a step."""
    end = START + 2 * HOUR
    publish(attack, "jp-1", {70: 40 * MB, 85: 40 * MB, 100: 5 * MB}, 6 * MB, end)
    publish(attack, "us-1", {70: 4 * MB, 85: 5 * MB, 100: 6 * MB}, 7 * MB, end)
    attack.fetching = FetchPolicy(page_limit=50, step_max_samples=1_000)
    runs = 40 if job is collect else 1
    for number in range(runs):
        attack.run(end + number * timedelta(seconds=1), job)
    assert attack.charged()[0] == USERS * (43 * MB + 4 * MB)


@JOBS
def test_a_decrease_without_an_hour_of_history_is_waited_for(attack: Attack, job: Any) -> None:
    """All that the node has is asked for, and not yet enough."""
    end = START + HOUR // 2
    publish(attack, "jp-1", {70: 40 * MB, 85: 40 * MB, 100: 5 * MB}, 6 * MB, end)
    attack.fetching = FetchPolicy(page_limit=50, step_max_samples=200)
    result = attack.run(end, job)
    assert (attack.charged()[0], result.sources[0].waits_for_successor) == (0, True)


@JOBS
def test_a_source_that_can_t_be_moved_is_partial(
    attack: Attack, job: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An hour of its snapshots exceeds the largest step: a note says what to do."""
    monkeypatch.setattr(larger_shares, "LARGEST_STEP_SAMPLES", 400)
    end = START + 2 * HOUR
    publish(attack, "jp-1", {70: 40 * MB, 85: 40 * MB, 100: 5 * MB}, 6 * MB, end)
    attack.fetching = FetchPolicy(page_limit=50, step_max_samples=200)
    attack.run(end, collect)
    result = attack.run(end, job)
    assert (result.status, result.sources[0].status) == ("partial", "partial")
    assert "catch-up --source jp-1" in result.sources[0].notes[-1]
    row = attack.connection.execute(
        "SELECT status, result FROM billing.runs WHERE run_id = %s", (result.run_id,)
    )
    (status, kept) = row.fetchone() or ("", {})
    assert (status, kept["sources"][0]["notes"]) == ("partial", list(result.sources[0].notes))
    attack.fetching = FetchPolicy(page_limit=50, step_max_samples=20_000)
    assert attack.run(end + MINUTE, job).status == "ok"


@pytest.mark.parametrize("largest", [1_000, 3_000, 6_000, 12_000])
def test_a_catch_up_of_sources_that_stand_still_together_ends(
    attack: Attack, largest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where their hours do not fit into one step, they are charged, or partial with a note."""
    monkeypatch.setattr(larger_shares, "LARGEST_STEP_SAMPLES", largest)
    end = START + 2 * HOUR
    for source_id in ("jp-1", "us-1"):
        publish(attack, source_id, {70: 40 * MB, 85: 40 * MB, 100: 5 * MB}, 6 * MB, end)
    attack.fetching = FetchPolicy(page_limit=50, step_max_samples=200)
    result = attack.run(end)
    moved = [source for source in result.sources if source.status == "ok"]
    assert attack.charged()[0] == len(moved) * USERS * (37 * MB + 6 * MB)
    assert result.status == ("ok" if len(moved) == 2 else "partial")
    monkeypatch.undo()
    assert [attack.run(end, source_ids=[name]).status for name in ("jp-1", "us-1")] == ["ok", "ok"]
    assert attack.charged()[0] == 2 * USERS * (37 * MB + 6 * MB)


@pytest.mark.parametrize("minutes", [0, 1])
def test_a_collect_ends_before_the_next_one_begins(attack: Attack, minutes: int) -> None:
    """It takes no more further steps once its time to fetch is over, and says so."""
    end = START + 2 * HOUR
    publish(attack, "jp-1", {70: 40 * MB, 85: 40 * MB, 100: 5 * MB}, 6 * MB, end)
    attack.fetching = FetchPolicy(page_limit=50, step_max_samples=200)
    now = end + 2 * MINUTE
    attack.run(end, collect)
    moments = iter([now])
    context = replace(attack.context(now), clock=lambda: next(moments, now + minutes * MINUTE))
    result = collect(context)
    assert (result.status, result.steps > 1) == (
        ("ok", True) if not minutes else ("partial", False)
    )


@pytest.mark.parametrize(("further", "status"), [(1, "partial"), (4, "ok")])
def test_a_collect_takes_few_further_steps(
    attack: Attack, further: int, status: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A source that they do not move is partial; the steps of the next run begin anew."""
    monkeypatch.setattr("billing_cli.jobs.collect.MOST_FURTHER_STEPS", further)
    end = START + 2 * HOUR
    publish(attack, "jp-1", {70: 40 * MB, 85: 40 * MB, 100: 5 * MB}, 6 * MB, end)
    attack.fetching = FetchPolicy(page_limit=50, step_max_samples=200)
    attack.run(end, collect)
    result = attack.run(end, collect)
    assert (result.status, result.sources[0].status) == (status, status)
    assert result.steps <= 1 + further


def publish(
    attack: Attack, source_id: str, early: dict[int, int], later: int, end: datetime
) -> None:
    """Publish 3 MB for each user, then totals by second, then the same for all of the time."""
    node, users = attack.node(source_id), attack.users(USERS)
    for second in range(0, int((end - START).total_seconds()) + 1, 15):
        at = second + 10 if second else 0
        total = 3 * MB if at <= 60 else early.get(at, later)
        node.snapshots[START + timedelta(seconds=at)] = [(user, "tcp", total) for user in users]


@pytest.mark.parametrize("minute", range(5, 12))
def test_a_step_that_ends_at_a_decrease_does_not_decide_alone(attack: Attack, minute: int) -> None:
    """A denser history ended: the next step has the snapshot that shows another clock."""
    node, users = attack.node("jp-1"), attack.users(2)
    stamps = [*range(0, 300, 15), *range(300, 1500, 60)]
    for second in stamps:
        total = 1 if second == minute * 60 else 3 * MB + second
        at = START + timedelta(seconds=second)
        node.snapshots[at] = [(user, "tcp", total) for user in users]
    attack.fetching = FetchPolicy(page_limit=50, step_max_samples=24)
    attack.run(START + 3 * HOUR, catch_up)
    assert attack.charged()[0] == 2 * stamps[-1]
    kinds = attack.connection.execute("SELECT kind FROM billing.gaps WHERE kind <> 'stalled'")
    assert kinds.fetchall() == [("disorder",)]


@pytest.mark.parametrize("settle_seconds", [30, 300])
def test_a_lower_reading_waits_for_the_next_one_however_late_minutes_are_settled(
    attack: Attack, settle_seconds: int
) -> None:
    """The exporter has it already, and the run that settles its minute decides."""
    (user,) = attack.users()
    node = attack.node()
    totals = (10**9, 9 * 10**8, 10**9 + 1000, 10**9 + 2000, 10**9 + 3000)
    for minute, total in enumerate(totals):
        node.snapshots[START + minute * MINUTE] = [(user, "tcp", total)]
    settle = timedelta(seconds=settle_seconds)
    for minute in range(6):
        now = START + minute * MINUTE + settle + timedelta(seconds=40)
        collect(replace(attack.context(now), settle=settle))
    assert attack.charged()[0] == 3000
