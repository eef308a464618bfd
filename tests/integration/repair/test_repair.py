"""Charges that a stale write undid: `audit` names them, `repair balances` puts them right, once."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from billing_cli.core.result import result_object
from billing_cli.database.balances import read_changes_of
from billing_cli.errors import UsageError
from billing_cli.features.repair import job
from billing_cli.simulator import read_service
from billing_cli.simulator.accounts import save_users
from billing_cli.simulator.books import Funds
from tests.integration.repair.conftest import REASON, Customer
from tests.support.guards import without_guards
from tests.support.neighbour import ADD_NEWER_COLUMNS, add_row, add_to_balance, stale_write

if TYPE_CHECKING:
    from billing_cli.database.balances import AccountChanges
    from tests.support.story import Story

SOON, MONTH = timedelta(seconds=90), timedelta(days=30)


def kinds(customer: Customer) -> dict[str, int]:
    """Return what an audit finds."""
    return dict(customer.audit().counts)


def test_a_lost_charge_is_found_repaired_once_and_audited_clean(customer: Customer) -> None:
    """The account pays what it used, and the second repair changes nothing."""
    customer.use(1)
    with stale_write(customer.connection, customer.uuid):
        customer.use(2)

    report = customer.audit()

    assert report.counts == {"charge_lost": 1}
    assert report.violations == 1
    (finding,) = report.findings
    assert finding.account_uuid == customer.uuid
    assert finding.found == {"amount_delta": Decimal(-2)}
    assert (
        finding.keys["ledger_id"]
        == customer.story.rows(
            "SELECT ledger_id::text FROM billing.charges WHERE amount_delta = -2"
        )[0][0]
    )
    assert customer.funds.balance == 4

    result = customer.repair()

    assert (result.status, result.corrections, result.amount) == ("ok", 1, 2)
    assert customer.funds.balance == 2
    assert kinds(customer) == {}
    assert customer.repair().corrections == 0
    assert customer.funds.balance == 2


def test_charges_go_on_from_a_repaired_balance(customer: Customer) -> None:
    """A repair stands between two charges, and so does a loss that nobody repaired yet."""
    with stale_write(customer.connection, customer.uuid):
        customer.use(1)
    customer.use(1)
    assert kinds(customer) == {"charge_lost": 1}

    customer.repair()
    customer.use(1)

    assert customer.funds.balance == 2
    assert kinds(customer) == {}


def test_several_losses_are_repaired_together(customer: Customer) -> None:
    """Each is recorded by itself."""
    for _ in range(2):
        with stale_write(customer.connection, customer.uuid):
            customer.use(1)
            customer.use(1)
    assert kinds(customer) == {"charge_lost": 4}

    assert customer.repair().corrections == 2

    assert customer.funds.balance == 1
    assert kinds(customer) == {}


def test_reading_the_charges_may_take_longer_than_other_statements(
    customer: Customer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of them are read twice, the second time with the account locked."""
    with stale_write(customer.connection, customer.uuid):
        customer.use(1)

    def read_slowly(connection: psycopg.Connection, *arguments: Any) -> list[AccountChanges]:
        connection.execute("SELECT pg_sleep(0.5)")
        return read_changes_of(connection, *arguments)

    monkeypatch.setattr(job, "read_changes_of", read_slowly)
    context = customer.story.context()
    hasty = replace(context.database, statement_timeout_seconds=0.25)

    result = job.repair_balances(replace(context, database=hasty), REASON)

    assert (result.status, result.corrections) == ("ok", 1)
    assert customer.funds.balance == 4


def test_a_repair_that_is_undone_is_repaired_again(customer: Customer) -> None:
    """The read service read the balance before the repair."""
    with stale_write(customer.connection, customer.uuid):
        customer.use(1)
    with stale_write(customer.connection, customer.uuid):
        customer.repair()
    assert kinds(customer) == {"charge_lost": 1}

    assert customer.repair().corrections == 1

    assert customer.funds.balance == 4
    assert kinds(customer) == {}


def test_a_stale_top_up_keeps_the_top_up(customer: Customer) -> None:
    """Its row explains that part of the change."""
    amount = Decimal(25)
    customer.use(1)
    with stale_write(customer.connection, customer.uuid, amount):
        add_row(customer.connection, customer.uuid, amount)
        customer.use(2)
    assert kinds(customer) == {"charge_lost": 1}

    customer.repair()

    assert customer.funds.balance == 27
    assert kinds(customer) == {}


def test_a_restored_quota_is_taken_back_as_well(story: Story) -> None:
    """Where it is still what the stale write left, and never below 0."""
    story.quota = 5_000
    customer = Customer(story)
    customer.use(1)
    with stale_write(customer.connection, customer.uuid):
        customer.use(3)
    assert customer.funds.quota == 4_000
    assert kinds(customer) == {"charge_lost": 1}

    result = customer.repair()

    assert customer.funds.quota == 1_000
    assert (result.repairs[0].before.quota, result.repairs[0].after.quota) == (4_000, 1_000)
    assert kinds(customer) == {}


def test_a_dry_run_says_what_it_would_do(customer: Customer) -> None:
    """And changes nothing."""
    with stale_write(customer.connection, customer.uuid):
        customer.use(1)

    result = customer.repair(dry_run=True)

    assert (result.corrections, result.amount) == (1, 1)
    assert customer.funds.balance == 5
    customer.repair()


def test_a_repair_is_recorded_with_its_reason(customer: Customer) -> None:
    """The charges, the funds before and after; no ledger row, because the charge has one."""
    with stale_write(customer.connection, customer.uuid):
        customer.use(1)
    ledger = customer.story.rows("SELECT * FROM public.billing_ledger")

    result = customer.repair()

    ((account, amount, before, after, reason, run_id, charges),) = customer.story.rows(
        "SELECT account_uuid::text, amount_delta, balance_before, balance_after, reason,"
        " run_id::text, ledger_ids = (SELECT array_agg(ledger_id) FROM billing.charges)"
        " FROM billing.repairs"
    )
    assert (account, amount, before, after) == (customer.uuid, -1, 5, 4)
    assert (reason, run_id, charges) == (REASON, result.run_id, True)
    assert customer.story.rows("SELECT * FROM public.billing_ledger") == ledger
    told = result_object(result)["repairs"][0]
    assert (told["amount"], told["charges"][0]["amount_delta"]) == ("1.000000000", "-1.000000000")


def test_only_the_account_that_is_named_is_repaired(story: Story) -> None:
    """By its uuid or its proxy uuid; an unknown one is a usage error."""
    first, second = Customer(story), story.add_user()
    stream = story.fleet.nodes["jp-1"].add_stream(second.uuid, "xhttp")
    story.minute((stream, 0, 1000))
    story.collect()
    with (
        stale_write(story.connection, first.uuid),
        stale_write(story.connection, second.uuid),
    ):
        story.minute((first.stream, 0, 1000), (stream, 0, 1000))
        story.collect()

    result = first.repair(account=first.user.proxy_uuid)

    assert [repair.account_uuid for repair in result.repairs] == [first.uuid]
    with pytest.raises(UsageError, match="unknown account"):
        first.repair(account=story.fleet.new_uuid())
    assert [repair.account_uuid for repair in first.repair().repairs] == [second.uuid]


def test_a_row_that_is_locked_is_left_to_the_next_repair(customer: Customer) -> None:
    """The run is partial and says so."""
    with stale_write(customer.connection, customer.uuid):
        customer.use(1)
    with psycopg.connect(customer.story.database_url) as other:
        other.execute("SELECT FROM public.account_quota_states FOR UPDATE")
        result = customer.repair()

    assert (result.status, result.corrections, result.skipped) == ("partial", 0, 1)
    assert customer.repair().corrections == 1


def test_a_balance_that_falls_below_zero_is_flagged(customer: Customer) -> None:
    """As a charge would have done."""
    with stale_write(customer.connection, customer.uuid):
        customer.use(6)
    customer.repair()

    ((balance, arrears, throttle),) = customer.story.rows(
        "SELECT current_balance, arrears, throttle_state FROM public.account_quota_states"
    )
    assert (balance, arrears, throttle) == (-1, True, "throttled")


def test_what_rows_explain_is_neither_violation_nor_notice(customer: Customer) -> None:
    """Top-ups, adjustments in either direction, and rows of kinds that are not known yet."""
    customer.use(1)
    for kind, amount in (("topup", "10"), ("manual_adjustment", "-3"), ("bonus", "0.5")):
        add_row(customer.connection, customer.uuid, Decimal(amount), kind)
        add_to_balance(customer.connection, customer.uuid, Decimal(amount))
        customer.use(1)

    assert kinds(customer) == {}
    (account,) = customer.audit().accounts
    assert (account.opening_balance, account.outside) == (5, Decimal("7.5"))


def test_a_row_without_a_change_is_a_notice(customer: Customer) -> None:
    """As where a stale write swallowed a top-up before anything was charged."""
    customer.use(1)
    with customer.connection.transaction(), without_guards(customer.connection):
        customer.connection.execute(
            "UPDATE billing.charges SET created_at = created_at - interval '1 hour'"
        )
    add_row(customer.connection, customer.uuid, Decimal(25))
    assert kinds(customer) == {}  # The balance may follow.
    customer.connection.execute(
        "UPDATE public.billing_ledger SET created_at = created_at - interval '15 minutes'"
        " WHERE entry_type = 'topup'"
    )

    report = customer.audit()

    assert report.counts == {"entry_unapplied": 1}
    assert report.findings[0].found == {"rows": 1, "amount_delta": Decimal(25)}


def test_a_renewal_is_explained_by_its_period(customer: Customer) -> None:
    """Where the deployment has periods; elsewhere it is a notice."""
    renew = "UPDATE public.account_quota_states SET remaining_included_quota = 777"
    customer.use(1)
    customer.connection.execute(renew)
    assert kinds(customer) == {"quota_outside": 1}

    customer.connection.execute(ADD_NEWER_COLUMNS)
    customer.connection.execute(
        "GRANT SELECT (period_start) ON public.account_quota_states TO PUBLIC"
    )
    customer.connection.execute("UPDATE public.account_quota_states SET period_start = now()")

    assert kinds(customer) == {}


def test_a_repair_is_not_repeated_after_a_renewal_across_a_backlog(customer: Customer) -> None:
    """Two runs charge minutes of the former period after the renewal was seen."""
    customer.connection.execute(ADD_NEWER_COLUMNS)
    customer.connection.execute("GRANT SELECT, UPDATE ON public.account_quota_states TO PUBLIC")
    customer.use(1)
    with stale_write(customer.connection, customer.uuid):
        customer.use(2)
    assert customer.repair().corrections == 1
    repaired = customer.funds
    start = customer.story.minute((customer.stream, 0, 100)) + SOON
    read_service.renew_quota(customer.connection, customer.uuid, 50_000, start, start + MONTH)
    for _ in range(2):
        customer.story.collect()
        customer.story.minute((customer.stream, 0, 100))

    assert kinds(customer) == {}
    assert customer.repair().corrections == 0
    assert customer.funds == Funds(repaired.balance - Decimal("0.2"), 50_000)


@pytest.mark.parametrize("value", ["NULL", "'NaN'", "'Infinity'"])
def test_a_balance_that_is_none_is_a_notice_of_its_account(customer: Customer, value: str) -> None:
    """The others are audited and repaired as ever."""
    customer.use(1)
    customer.connection.execute(
        "ALTER TABLE public.account_quota_states ALTER current_balance DROP NOT NULL"
    )
    set_balance = "UPDATE public.account_quota_states SET current_balance = {}"
    customer.connection.execute(set_balance.format(value).encode())

    assert kinds(customer) == {"funds_invalid": 1}
    assert customer.repair().corrections == 0


@pytest.mark.parametrize(
    ("column", "value", "problem"),
    [
        ("current_balance", "NULL", "a balance of NULL; set a valid balance first"),
        ("current_balance", "'NaN'", "a balance of nan; set a valid balance first"),
        ("current_balance", "'Infinity'", "a balance of inf; set a valid balance first"),
        ("current_balance", "1e300", "a balance of 1e+300; set a valid balance first"),
        (
            "remaining_included_quota",
            "NULL",
            "a remaining quota of NULL; set a valid quota first",
        ),
    ],
)
def test_a_loss_in_funds_that_are_none_is_noted(
    customer: Customer, column: str, value: str, problem: str
) -> None:
    """The run is partial until the funds are valid; then the loss is repaired."""
    with stale_write(customer.connection, customer.uuid):
        customer.use(1)
    customer.use(1)
    valid = customer.funds
    customer.connection.execute(
        "ALTER TABLE public.account_quota_states ALTER current_balance DROP NOT NULL,"
        " ALTER remaining_included_quota DROP NOT NULL"
    )
    set_column = "UPDATE public.account_quota_states SET {} = {}"
    customer.connection.execute(set_column.format(column, value).encode())

    result = customer.repair()

    assert (result.status, result.corrections, result.skipped) == ("partial", 0, 0)
    assert result.notes == (f"account {customer.uuid} can't be repaired: {problem}",)
    customer.connection.execute(
        "UPDATE public.account_quota_states"
        "   SET current_balance = %s, remaining_included_quota = %s",
        (float(valid.balance), valid.quota),
    )
    assert customer.repair().corrections == 1
    assert kinds(customer) == {}


def test_a_created_again_account_has_lost_nothing(story: Story) -> None:
    """Its former charges are gone from the ledger."""
    customer = Customer(story)
    customer.use(1)
    story.connection.execute("DELETE FROM public.users")
    save_users(story.connection, [customer.user])
    story.connection.execute(
        "INSERT INTO public.account_quota_states (account_uuid, remaining_included_quota,"
        " current_balance, arrears, effective_at) VALUES (%s, 0, 5, false, now())",
        (customer.uuid,),
    )

    assert "charge_lost" not in kinds(customer)


def test_a_flag_of_another_service_is_not_ours_because_of_a_repair(customer: Customer) -> None:
    """A payment had failed before the repair took the balance below 0: a top-up leaves the flag."""
    customer.use(1)
    with stale_write(customer.connection, customer.uuid):
        customer.use(3)
    customer.connection.execute(
        "UPDATE public.account_quota_states SET arrears = true, throttle_state = 'throttled',"
        " current_balance = current_balance - 2"
    )
    add_row(customer.connection, customer.uuid, Decimal(-2), "manual_adjustment")
    assert customer.repair().corrections == 1
    assert customer.funds.balance < 0
    add_to_balance(customer.connection, customer.uuid, Decimal(25))
    customer.story.collect()
    flags = customer.connection.execute("SELECT arrears FROM public.account_quota_states")
    assert flags.fetchall() == [(True,)]
