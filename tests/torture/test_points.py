"""Which points of a job's line are cut: all of them, each once, whatever the seed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.support.relay import Relay, Severance, Side, relayed
from tests.torture.cuts import Point, Severing, chosen_points, points_of

if TYPE_CHECKING:
    from collections.abc import Iterator

MESSAGES: dict[Side, int] = {"client": 5, "server": 7}


@pytest.fixture
def relay(database_url: str) -> Iterator[Relay]:
    """Return a relay to a database."""
    with relayed(database_url) as opened:
        yield opened


@pytest.mark.parametrize("seed", [0, 12345])
def test_enough_rounds_cut_every_point_once(seed: int) -> None:
    """Each message of the client in two ways, each of the server in one."""
    points = points_of(MESSAGES)
    assert len(points) == 2 * 5 + 7
    chosen = [point for _, point in chosen_points(points, seed, 1_000_000)]
    assert sorted(map(repr, chosen)) == sorted(map(repr, points))


def test_a_round_is_replayed_by_its_own_seed() -> None:
    """As the first and only one."""
    points = points_of(MESSAGES)
    for seed, point in chosen_points(points, 3, 10):
        assert list(chosen_points(points, seed, 1)) == [(seed, point)]


@pytest.mark.parametrize("severance", ["withheld", "delivered"])
def test_the_line_is_severed_for_both_sides(relay: Relay, severance: Severance) -> None:
    """The client's connection is gone at the message; only a delivered one has an effect."""
    with psycopg.connect(relay.url, autocommit=True) as connection:
        connection.execute("CREATE TABLE public.seen (number int)")
        severing = Severing(Point("client", relay.messages["client"], severance))
        relay.judge_message = severing
        with pytest.raises(psycopg.OperationalError):
            connection.execute("INSERT INTO public.seen VALUES (1)")
    assert severing.happened
    with psycopg.connect(relay.url) as another:
        pids = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'INSERT INTO public.seen%'"
        while another.execute(pids).fetchone() != (0,):
            another.rollback()
        rows = another.execute("SELECT count(*) FROM public.seen").fetchone()
    assert rows == (1 if severance == "delivered" else 0,)


def test_an_answer_is_withheld_although_its_work_is_done(relay: Relay) -> None:
    """The client can't know that its statement has committed."""
    with psycopg.connect(relay.url, autocommit=True) as connection:
        connection.execute("CREATE TABLE public.seen (number int)")
        relay.judge_message = Severing(Point("server", relay.messages["server"], "withheld"))
        with pytest.raises(psycopg.OperationalError):
            connection.execute("INSERT INTO public.seen VALUES (1)")
    with psycopg.connect(relay.url) as another:
        assert another.execute("SELECT count(*) FROM public.seen").fetchone() == (1,)


def test_messages_are_counted_from_the_startup_message_on(relay: Relay) -> None:
    """So that not even a connection under way is left out."""
    relay.judge_message = Severing(Point("client", 0, "withheld"))
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(relay.url)
    assert relay.messages == {"client": 1, "server": 0}
