"""`billing suspend`: accounts that are in arrears for long are suspended, settled ones released."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg.errors import InsufficientPrivilege

from billing_cli.core.result import result_object
from billing_cli.errors import UsageError
from billing_cli.features.migrate.job import migrate

if TYPE_CHECKING:
    from tests.integration.suspend.conftest import Arrears

RESTORED = {"arrears", "throttle_state", "arrears_since"}
FLAGGED = (True, "throttled", "active")
SUSPENDED = (True, "throttled", "suspended")
CLEAR = (False, "normal", "active")


def test_an_account_is_suspended_after_its_time_and_released_once_settled(
    arrears: Arrears,
) -> None:
    """Both are on record; what is paid in between is not asked for."""
    account, other = arrears.account(-1), arrears.account(0)

    assert arrears.suspend().suspended == ()
    assert arrears.state(account) == FLAGGED
    assert arrears.suspend(13.9).suspended == ()
    assert [one.account_uuid for one in arrears.suspend(14.1).suspended] == [account]
    assert arrears.state(account) == SUSPENDED
    assert arrears.suspend(15).suspended == ()
    arrears.set(account, current_balance=0)
    result = arrears.suspend(16)

    assert [one.account_uuid for one in result.released] == [account]
    assert (arrears.state(account), arrears.state(other)) == (CLEAR, CLEAR)
    row = arrears.connection.execute("SELECT * FROM billing.suspensions").fetchone()
    assert row is not None
    assert (str(row["account_uuid"]), row["balance"], row["release_balance"]) == (account, -1, 0)
    assert row["released_at"] == arrears.now + timedelta(days=16)
    assert str(row["release_run_id"]) == result.run_id
    assert result_object(result)["released"][0]["account_uuid"] == account


def test_arrears_begin_when_the_deployment_says_so(arrears: Arrears) -> None:
    """`arrears_since` counts where the column exists and is set."""
    account = arrears.account(-1)
    arrears.set(account, arrears_since=arrears.now - timedelta(days=20))

    assert [one.account_uuid for one in arrears.suspend().suspended] == [account]


@pytest.mark.parametrize("since", ["infinity", "-infinity", "0044-03-15 BC", "20000-01-01Z"])
def test_arrears_since_no_time_begin_when_a_run_sees_them(arrears: Arrears, since: str) -> None:
    """The others are suspended as always."""
    account, other = arrears.account(-1), arrears.account(-1)
    arrears.set(other, arrears_since=arrears.now - timedelta(days=20))
    arrears.connection.execute(
        "UPDATE public.account_quota_states SET arrears_since = %s WHERE account_uuid = %s",
        (since, account),
    )
    assert [one.account_uuid for one in arrears.suspend().suspended] == [other]
    assert [one.account_uuid for one in arrears.suspend(14.1).suspended] == [account]


def test_without_that_column_our_own_record_counts(arrears: Arrears) -> None:
    """Since the first run that saw the balance below zero."""
    arrears.connection.execute("ALTER TABLE public.account_quota_states DROP arrears_since")
    account = arrears.account(-1)

    assert arrears.suspend().suspended == ()
    assert [one.account_uuid for one in arrears.suspend(14.1).suspended] == [account]


def test_the_start_of_arrears_that_another_service_removed_is_set_again(arrears: Arrears) -> None:
    """As our record has it, where the flag is ours."""
    account = arrears.account(-1)
    arrears.suspend()
    arrears.set(account, arrears_since=None)

    assert arrears.suspend(1).flagged == 1
    query = (
        "SELECT state.arrears_since = flag.since AS is_kept"
        " FROM public.account_quota_states AS state JOIN billing.arrears AS flag"
        " USING (account_uuid)"
    )
    assert arrears.connection.execute(query).fetchone() == {"is_kept": True}
    assert arrears.suspend(1).flagged == 0


def test_a_flag_of_another_service_stays(arrears: Arrears) -> None:
    """A payment failed, and the balance is 0 or more: neither cleared, nor a reason to suspend."""
    account = arrears.account(3, arrears=True)
    arrears.set(account, arrears_since=arrears.now - timedelta(days=20))

    result = arrears.suspend()

    assert (result.suspended, result.cleared) == ((), 0)
    assert arrears.state(account) == FLAGGED


def old_flag(arrears: Arrears, balance: float) -> str:
    """Return an account with a flag of another service that is 30 days old, seen by a run."""
    account = arrears.account(balance, arrears=True)
    arrears.set(account, arrears_since=arrears.now - timedelta(days=30))
    assert arrears.suspend().suspended == ()
    return account


def test_arrears_after_a_flag_of_another_service_begin_when_the_balance_falls(
    arrears: Arrears,
) -> None:
    """A payment failed; then an adjustment took the balance below 0, without traffic."""
    account = old_flag(arrears, 5)
    arrears.set(account, current_balance=-1)

    assert arrears.suspend(1).suspended == ()
    assert arrears.suspend(13.9).suspended == ()
    assert [one.account_uuid for one in arrears.suspend(15.1).suspended] == [account]
    arrears.set(account, current_balance=3)
    result = arrears.suspend(16)

    assert ([one.account_uuid for one in result.released], result.cleared) == ([account], 0)
    assert arrears.state(account) == FLAGGED
    arrears.set(account, current_balance=-1)
    assert arrears.suspend(17).suspended == ()


def test_a_flag_of_another_service_that_is_gone_is_forgotten(arrears: Arrears) -> None:
    """What is raised below 0 after it is ours, and so is the time that it names."""
    account = old_flag(arrears, 5)
    arrears.set(account, arrears=False, throttle_state="normal", arrears_since=None)
    arrears.suspend(1)
    since = arrears.now + timedelta(days=2)
    arrears.set(account, current_balance=-1, arrears=True, arrears_since=since)

    assert [one.account_uuid for one in arrears.suspend(16.1).suspended] == [account]
    arrears.set(account, current_balance=1)
    assert arrears.suspend(17).cleared == 1
    assert arrears.state(account) == CLEAR


def test_a_flag_that_was_removed_before_the_balance_fell_is_ours(arrears: Arrears) -> None:
    """No run saw the account in between."""
    account = old_flag(arrears, 5)
    arrears.set(account, arrears=False, arrears_since=None, current_balance=-1)
    arrears.suspend(1)
    arrears.set(account, current_balance=1)

    assert arrears.suspend(2).cleared == 1


def test_a_flag_of_another_service_after_ours_was_cleared_is_not_ours_below_zero(
    arrears: Arrears,
) -> None:
    """Our record of the former arrears says nothing of it."""
    account = arrears.account(-1)
    arrears.suspend()
    arrears.set(account, current_balance=5)
    arrears.suspend(1)
    arrears.set(account, arrears=True, arrears_since=arrears.now - timedelta(days=30))
    arrears.suspend(2)
    arrears.set(account, current_balance=-1)
    assert arrears.suspend(3).suspended == ()
    arrears.set(account, current_balance=5)
    assert arrears.suspend(4).cleared == 0
    assert arrears.state(account) == FLAGGED


@pytest.mark.parametrize("has_since", [True, False])
def test_a_flag_of_ours_that_a_stale_write_restores_stays_ours(
    arrears: Arrears, has_since: bool
) -> None:
    """A handler had read the row before the flag was cleared; the next settlement clears it."""
    if not has_since:
        arrears.connection.execute("ALTER TABLE account_quota_states DROP COLUMN arrears_since")
    account = arrears.account(-1)
    arrears.suspend()
    before = arrears.connection.execute(
        "SELECT to_jsonb(state) - 'current_balance' AS row FROM account_quota_states AS state"
        " WHERE account_uuid = %s",
        (account,),
    ).fetchone()
    arrears.set(account, current_balance=5)
    assert arrears.suspend(1).cleared == 1
    assert before is not None
    arrears.set(account, **{name: before["row"][name] for name in RESTORED & before["row"].keys()})
    arrears.suspend(1)
    arrears.set(account, current_balance=-1)
    arrears.suspend(1)
    arrears.set(account, current_balance=5)

    assert arrears.suspend(1).cleared == 1
    assert arrears.state(account) == (False, "normal", "active")


def test_a_flag_that_comes_after_ours_was_cleared_stays(arrears: Arrears) -> None:
    """Ours ended with the top-up; the next one is not ours."""
    account = arrears.account(-1)
    arrears.suspend()
    arrears.set(account, current_balance=5)
    assert arrears.suspend(1).cleared == 1
    arrears.set(account, arrears=True, throttle_state="throttled")

    assert arrears.suspend(2).cleared == 0
    assert arrears.state(account) == FLAGGED


def test_arrears_that_begin_again_count_from_then(arrears: Arrears) -> None:
    """Days below zero before the top-up are over."""
    account = arrears.account(-1)
    arrears.suspend()
    arrears.set(account, current_balance=5)
    arrears.suspend(1)
    arrears.set(account, current_balance=-1, arrears_since=arrears.now + timedelta(days=10))

    assert arrears.suspend(15).suspended == ()
    assert [one.account_uuid for one in arrears.suspend(24.1).suspended] == [account]


def test_what_another_service_suspended_is_not_ours_to_release(arrears: Arrears) -> None:
    """Whatever its balance is."""
    account = arrears.account(5)
    arrears.set(account, suspend_state="suspended")

    assert arrears.suspend(20).released == ()
    assert arrears.state(account) == (False, "normal", "suspended")


def test_an_account_that_was_released_by_others_has_its_time_again(arrears: Arrears) -> None:
    """An operator gave it another chance: the time counts anew."""
    account = arrears.account(-1)
    arrears.suspend()
    arrears.suspend(15)
    arrears.set(account, suspend_state="active")

    assert [one.account_uuid for one in arrears.suspend(16).closed] == [account]
    assert arrears.suspend(29).suspended == ()
    assert [one.account_uuid for one in arrears.suspend(30.1).suspended] == [account]


def test_a_dry_run_suspends_nobody(arrears: Arrears) -> None:
    """It says who would be."""
    account = arrears.account(-1)
    arrears.suspend()

    assert [one.account_uuid for one in arrears.suspend(15, dry_run=True).suspended] == [account]
    assert arrears.state(account) == FLAGGED
    assert arrears.connection.execute("SELECT FROM billing.suspensions").fetchall() == []


def test_an_account_that_is_locked_is_left_to_the_next_run(arrears: Arrears) -> None:
    """It delays nobody else."""
    locked, other = arrears.account(-1), arrears.account(-1)
    arrears.suspend()
    with psycopg.connect(arrears.connection.info.dsn) as holder:
        holder.execute(
            "SELECT FROM public.account_quota_states WHERE account_uuid = %s FOR UPDATE", (locked,)
        )
        result = arrears.suspend(15)

    assert (result.status, result.skipped) == ("partial", 1)
    assert [one.account_uuid for one in result.suspended] == [other]


@pytest.mark.parametrize("balance", ["-Infinity", "-1e15", "-2e300"])
def test_what_is_no_balance_suspends_nobody(arrears: Arrears, balance: str) -> None:
    """The others are looked at as ever; a note names the account."""
    wrong = arrears.account(float(balance))
    account = arrears.account(-1)
    arrears.suspend()
    result = arrears.suspend(15)

    assert [one.account_uuid for one in result.suspended] == [account]
    assert (result.status, len(result.notes)) == ("partial", 1)
    assert result.notes[0].startswith(f"account {wrong} can't be suspended or released: ")


@pytest.mark.parametrize("balance", ["NaN", "Infinity", "1e15"])
def test_what_is_no_balance_releases_nobody(arrears: Arrears, balance: str) -> None:
    """The account stays suspended, and a note names it."""
    account = arrears.account(-1)
    arrears.suspend()
    arrears.suspend(15)
    arrears.set(account, current_balance=float(balance))
    result = arrears.suspend(16)

    assert (result.status, result.released) == ("partial", ())
    assert result.notes[0].startswith(f"account {account} can't be suspended or released: ")


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE public.account_quota_states SET current_balance = 0",
        "INSERT INTO public.billing_ledger (id) VALUES (NULL)",
        "SELECT FROM billing.charges",
        "DELETE FROM billing.suspensions",
    ],
)
def test_the_role_that_suspends_may_do_nothing_else(arrears: Arrears, statement: str) -> None:
    """It moves no money, reads no usage, and deletes nothing."""
    with psycopg.connect(arrears.url) as connection, pytest.raises(InsufficientPrivilege):
        connection.execute(statement.encode())


def test_the_role_of_the_jobs_may_not_suspend(database_url: str, job_url: str) -> None:
    """One role for both is refused."""
    with psycopg.connect(job_url) as connection, pytest.raises(InsufficientPrivilege):
        connection.execute("UPDATE public.account_quota_states SET suspend_state = 'suspended'")
    with pytest.raises(UsageError, match="need roles of their own"):
        migrate(database_url, grant_to="someone", grant_suspend_to="someone")
