"""What is wrong with the books is found and counted: an attack that can't fail shows nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from billing_cli.errors import BillingError
from tests.torture import scenes
from tests.torture.trial import ends_well
from tests.torture.verdict import Verdict, look_between, look_finally

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.torture.scenes import LimitedWorld

CHANGE_A_BUCKET = """
UPDATE public.traffic_minute_buckets AS bucket
   SET uplink_bytes = uplink_bytes + %(bytes)s, total_bytes = total_bytes + %(bytes)s
 WHERE account_uuid = %(account)s
   AND (bucket_start, node_id, line_code) = (
         SELECT bucket_start, node_id, line_code FROM public.traffic_minute_buckets
          WHERE account_uuid = %(account)s AND uplink_bytes > 100
          ORDER BY bucket_start, node_id, line_code LIMIT 1)
"""


@pytest.fixture
def world(database_url: str, job_url: str) -> Iterator[LimitedWorld]:
    """Return a world that is billed to its end, and right."""
    with scenes.played(scenes.COLLECT, database_url, job_url) as played:
        scenes.COLLECT.work(played)
        assert verdict_on(played).is_clean
        yield played


def test_bytes_that_are_missing_are_lost(world: LimitedWorld) -> None:
    """A bucket that shows 70 bytes less."""
    change_a_bucket(world, -70)
    verdict = verdict_on(world)
    assert (verdict.lost_bytes, verdict.doubled_bytes) == (70, 0)
    assert verdict.problems


def test_bytes_too_many_are_doubled(world: LimitedWorld) -> None:
    """A bucket that shows 70 bytes more."""
    change_a_bucket(world, 70)
    verdict = verdict_on(world)
    assert (verdict.lost_bytes, verdict.doubled_bytes) == (0, 70)
    assert verdict.problems


def test_a_bucket_that_is_wrong_breaks_an_invariant_at_once(world: LimitedWorld) -> None:
    """Also while there is more to be done."""
    change_a_bucket(world, 70)
    verdict = Verdict()
    look_between(world, verdict)
    assert len(verdict.problems) >= 3


def test_a_balance_that_is_off_is_counted_in_nanos(world: LimitedWorld) -> None:
    """Two nanos, in a balance that nobody topped up."""
    world.connection.execute(
        "UPDATE public.account_quota_states SET current_balance = current_balance - 2e-9"
        " WHERE account_uuid = %s",
        (world.fleet.users[0].uuid,),
    )
    verdict = verdict_on(world)
    assert verdict.wrong_nanos == 2
    assert (verdict.lost_bytes, verdict.doubled_bytes) == (0, 0)


def test_an_error_of_a_kind_that_nobody_expects_is_a_problem() -> None:
    """A run may fail, but only with an error that tells its exit code."""
    verdict = Verdict()
    assert not ends_well(lambda: failing(BillingError("the database is away")), verdict)
    assert verdict.is_clean
    assert not ends_well(lambda: failing(KeyError("balance")), verdict)
    assert verdict.problems == ["unexpected KeyError: 'balance'"]


def test_the_failure_of_a_run_is_not_that_of_one_before_it() -> None:
    """Else what the later one stores would be taken for what the failed one has stored."""
    verdict = Verdict()
    assert not ends_well(lambda: failing(BillingError("the database is away")), verdict)
    assert verdict.failure
    assert ends_well(lambda: None, verdict)
    assert not verdict.failure


def test_what_is_wrong_is_told_with_how_to_see_it_again(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The seed is that of the one round."""
    Verdict(lost_bytes=3, problems=["a bucket is wrong"]).tell("crash", 17, "collect")
    told = capsys.readouterr().err
    assert "3 bytes lost" in told
    assert "a bucket is wrong" in told
    assert "python -m tests.torture --only crash --seed 17 --rounds 1" in told


def verdict_on(world: LimitedWorld) -> Verdict:
    """Return what is wrong in the end."""
    verdict = Verdict()
    look_finally(world, verdict, scenes.held_bytes(world))
    return verdict


def change_a_bucket(world: LimitedWorld, uplink_bytes: int) -> None:
    """Let a bucket show another figure than was charged."""
    world.connection.execute(
        CHANGE_A_BUCKET, {"bytes": uplink_bytes, "account": world.fleet.users[0].uuid}
    )


def failing(error: Exception) -> None:
    """Fail with this error."""
    raise error
