"""Whatever breaks between a run and the server, and whenever: the result is right, and once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from typing import TYPE_CHECKING

import psycopg
import pytest

from billing_cli.database import connection
from billing_cli.errors import BillingError, DatabaseUnavailableError
from billing_cli.jobs.catch_up import catch_up
from tests.integration.database.stage import eventually, wait_until_blocked
from tests.integration.jobs.faults import refuse_some_times
from tests.support.relay import Relay, Verdict, relayed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

    from billing_cli.core.result import RunResult
    from tests.integration.jobs.world import World

# What a run reads before it asks exporters is not tried again: the next run comes in a minute.
READS_BEFORE_FETCHING = 8

FAULTS = ("cut", "cut answer", "terminate")

TERMINATE = """
SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
 WHERE datname = current_database() AND application_name = 'billing'
"""
COUNT_BACKENDS = """
SELECT count(*) FROM pg_stat_activity
 WHERE datname = current_database() AND application_name = 'billing'
"""
COUNT_WAITING = "SELECT count(*) FROM pg_stat_activity WHERE pid = %s AND wait_event_type = 'Lock'"

# The server takes its time with a COMMIT that the client already knows to be lost.
SLOW_COMMIT = """
CREATE FUNCTION public.dawdle() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM pg_sleep(0.3);
  RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER dawdle AFTER INSERT ON billing.runs
  DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION public.dawdle()
"""

pytestmark = pytest.mark.usefixtures("no_pause")


def test_a_connection_lost_at_any_statement_changes_nothing(world: World) -> None:
    """Each statement in turn, COMMIT included: the run is made once more, and billed once.

    The faults take turns; the torture strikes each message in each way.
    """
    world.add_node("jp-1", world.add_users(2))
    world.flow_until(75)
    world.run(world.at(2.7))
    with relayed_runs(world) as relay:
        for place in count():
            relay.judge = broken = Fault(world, place, FAULTS[place % len(FAULTS)])
            if place < READS_BEFORE_FETCHING:
                with pytest.raises(DatabaseUnavailableError):
                    collect_through(world, relay, world.at(place + 3.7))
            else:
                result = collect_through(world, relay, world.at(place + 3.7))
                assert result.status == "ok"
                assert result.processed_samples > 0
            if not broken.happened:
                break
    assert relay.statements[-1] == "COMMIT"
    assert place > 20
    world.run(world.at(77))
    world.assert_all_is_billed()


@pytest.mark.parametrize("verdict", ["cut answer", "cut after"])
def test_a_commit_whose_answer_is_lost_is_not_repeated(world: World, verdict: Verdict) -> None:
    """The server is asked whether it took place, even while it is still at it."""
    two_minutes_behind(world)
    world.connection.execute(SLOW_COMMIT)
    with relayed_runs(world) as relay:
        relay.judge = lambda _place, _statement: verdict if commits_a_write(relay) else None
        result = collect_through(world, relay, world.at(5))
    assert result.status == "ok"
    assert len(writes(relay)) == 1
    assert relay.statements[-3].startswith("SELECT pg_xact_status")
    world.run(world.at(8))
    world.assert_all_is_billed()


def test_a_commit_counts_where_the_run_left_its_row(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a failover the transaction's number may be that of another one, which committed."""
    two_minutes_behind(world)
    monkeypatch.setattr(
        connection, "TRANSACTION_STATUS", "SELECT left('committed', length(%(transaction_id)s) + 9)"
    )
    with relayed_runs(world) as relay:
        relay.judge = cut_first_commit(relay)
        result = collect_through(world, relay, world.at(5))
    assert result.status == "ok"
    assert len(writes(relay)) == 2
    world.run(world.at(8))
    world.assert_all_is_billed()


def test_a_commit_that_a_standby_has_not_heard_of_is_unknown(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may still come: the run is not repeated, and says what it does not know."""
    two_minutes_behind(world)
    monkeypatch.setattr(connection, "IS_STANDBY", "SELECT true")
    monkeypatch.setattr(connection, "COMMIT_CHECK_PAUSE_SECONDS", 0)
    with relayed_runs(world) as relay:
        relay.judge = cut_first_commit(relay)
        with pytest.raises(DatabaseUnavailableError, match="is not known yet"):
            collect_through(world, relay, world.at(5))
    assert len(writes(relay)) == 1
    world.run(world.at(8))
    world.assert_all_is_billed()


def test_a_catch_up_goes_on_after_a_lost_connection(world: World) -> None:
    """Every third statement is the last of its connection; the steps that are done stand."""
    world.add_node("jp-1", world.add_users(2))
    world.flow_until(6)
    world.fetching = type(world.fetching)(step_max_samples=4, page_limit=2)
    with relayed_runs(world) as relay:
        relay.judge = lambda _place, statement: (
            "cut answer" if statement == "COMMIT" and len(relay.statements) % 3 else None
        )
        result = world.run_unchecked(world.at(8), catch_up)
    assert result.steps > 2
    world.check()
    world.assert_all_is_billed()


@pytest.mark.parametrize("sqlstate", ["40001", "40P01", "57P01"])
def test_transient_errors_are_tried_again(world: World, sqlstate: str) -> None:
    """Serialization failure, deadlock and shutdown, twice in a row: the third attempt counts."""
    two_minutes_behind(world)
    refuse_some_times(world, sqlstate, times=2)
    assert world.run(world.at(8)).status == "ok"
    world.assert_all_is_billed()


@pytest.mark.parametrize(
    ("sqlstate", "error"), [("40001", BillingError), ("57P01", DatabaseUnavailableError)]
)
def test_attempts_are_bounded(world: World, sqlstate: str, error: type[BillingError]) -> None:
    """After three the run fails, and nothing of it is stored."""
    two_minutes_behind(world)
    refuse_some_times(world, sqlstate, times=3)
    before = world.tables("public.traffic_minute_buckets", "billing.sources", "billing.streams")
    with pytest.raises(error, match="database: simulated"):
        world.run_unchecked(world.at(8))
    assert world.tables(*before) == before
    world.run(world.at(8))
    world.assert_all_is_billed()


def test_other_errors_are_not_tried_again(world: World) -> None:
    """A full disk does not get better by asking."""
    two_minutes_behind(world)
    refuse_some_times(world, "53100", times=1)
    with pytest.raises(BillingError, match="database: simulated"):
        world.run_unchecked(world.at(8))


def test_a_deadlock_is_resolved_by_trying_again(
    world: World, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Someone else locks two accounts the other way round; the run is the victim, once.

    A session looks for a deadlock once in each wait. So the run is stopped at an account between
    the two, until the other one waits for it.
    """
    monkeypatch.setattr("billing_cli.jobs.accounts.LOCK_WAIT_SECONDS", 30.0)
    two_minutes_behind(world, users=3)
    first, between, last = sorted(
        row[0] for row in world.rows("SELECT account_uuid::text FROM public.account_quota_states")
    )
    database = world.connection.info.dbname
    world.connection.execute(f"ALTER DATABASE {database} SET deadlock_timeout = '100ms'".encode())
    with (
        psycopg.connect(database_url) as gate,
        psycopg.connect(database_url) as other,
        relayed_runs(world) as relay,
        ThreadPoolExecutor() as threads,
    ):
        other.execute("SET deadlock_timeout = '1min'")
        lock_account(other, last)
        lock_account(gate, between)
        finished = threads.submit(collect_through, world, relay, world.at(8))
        wait_until_blocked(world, finished)
        locked = threads.submit(lock_account, other, first)
        eventually(lambda: world.rows(COUNT_WAITING, other.info.backend_pid) == [(1,)])
        gate.commit()
        locked.result()
        other.commit()
        finished.result()
    assert len(writes(relay)) == 2
    world.check()
    world.assert_all_is_billed()


def test_a_balance_is_never_stale(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A top-up that is under way is waited for, and built upon."""
    monkeypatch.setattr("billing_cli.jobs.accounts.LOCK_WAIT_SECONDS", 30.0)
    two_minutes_behind(world)
    with (
        psycopg.connect(world.database_url) as other,
        relayed_runs(world) as relay,
        ThreadPoolExecutor() as thread,
    ):
        other.execute("UPDATE public.account_quota_states SET current_balance = 100")
        finished = thread.submit(collect_through, world, relay, world.at(8))
        wait_until_blocked(world, finished)
        other.commit()
        finished.result()
    lowest, highest = world.rows(
        "SELECT min(current_balance), max(current_balance) FROM public.account_quota_states"
    )[0]
    assert 99 < lowest <= highest < 100


class Fault:
    """Breaks one connection, at one place."""

    def __init__(self, world: World, place: int, fault: str) -> None:
        self.world = world
        self.place = place
        self.fault = fault
        self.happened = False

    def __call__(self, place: int, _statement: str) -> Verdict:
        """Judge a statement."""
        if place != self.place:
            return None
        self.happened = True
        if self.fault == "terminate":
            # An earlier run's backend may not be gone yet.
            assert self.world.rows(TERMINATE)[0][0] >= 1
            while self.world.rows(COUNT_BACKENDS) != [(0,)]:
                pass  # Before PostgreSQL 14, terminating can't wait.
            return None
        return "cut" if self.fault == "cut" else "cut answer"


@contextmanager
def relayed_runs(world: World) -> Iterator[Relay]:
    """Send the world's runs through a relay."""
    direct = world.database_url
    with relayed(direct) as relay:
        world.database_url = relay.url
        try:
            yield relay
        finally:
            world.database_url = direct
    relay.judge = lambda _place, _statement: None


def collect_through(world: World, relay: Relay, now: datetime) -> RunResult:
    """Run `collect`; the relay's statements are those of this run."""
    relay.statements.clear()
    return world.run_unchecked(now)


def writes(relay: Relay) -> list[str]:
    """Return the beginnings of all transactions that were to write: those that got a number."""
    return [statement for statement in relay.statements if "pg_current_xact_id" in statement]


def commits_a_write(relay: Relay) -> bool:
    """Tell whether what was just sent ends a transaction that was to write."""
    begun = [statement for statement in relay.statements if "set_config('TimeZone'" in statement]
    return relay.statements[-1] == "COMMIT" and "pg_current_xact_id" in begun[-1]


def cut_first_commit(relay: Relay) -> Callable[[int, str], Verdict]:
    """Return a judge that keeps the first COMMIT of a write from the server."""
    return lambda _place, _statement: (
        "cut" if commits_a_write(relay) and len(writes(relay)) == 1 else None
    )


def two_minutes_behind(world: World, *, users: int = 2) -> None:
    """Leave one node with traffic of so many users to be collected."""
    world.add_node("jp-1", world.add_users(users))
    world.flow_until(6)
    world.run(world.at(4))


def lock_account(connection: psycopg.Connection[tuple[object, ...]], account: str) -> None:
    """Lock an account's quota state for as long as the transaction lasts."""
    connection.execute(
        "SELECT FROM public.account_quota_states WHERE account_uuid = %s FOR UPDATE", (account,)
    )
