"""`billing rerate` as a process, and its result as text."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

from billing_cli.cli.printing import text_of
from billing_cli.core.result import AccountAmount
from billing_cli.features.rerate.report import RerateResult, rerate_parts
from tests.support.story import START

if TYPE_CHECKING:
    from tests.support.story import Story

RANGE = ("--since", "2026-04-08T12:00:00Z", "--until", "2026-04-08T13:00:00Z")
WHY = ("--reason", "the price list was not loaded", "--pricing-rule-version", "v2")
ALICE, BOB = "11111111-1111-1111-1111-111111111111", "22222222-2222-2222-2222-222222222222"


def test_the_command_charges_the_difference_to_the_configured_price(story: Story) -> None:
    """A dry run tells it, the run does it, and a second one finds nothing to do; all end with 0."""
    user = story.add_user()
    stream = story.add_node("jp-1").add_stream(user.uuid, "xhttp")
    story.minute()
    story.minute((stream, 100, 0))
    story.collect()
    price = {"PRICE_PER_BYTE": "0.003"}

    dry = story.billing("rerate", *RANGE, *WHY, "--dry-run", **price)
    assert dry.exit_code == 0
    assert "rerate: ok (dry run: nothing is stored) - 1 charge of 1 minute" in dry.stdout
    assert f"{user.uuid}        1  +0.200000000" in dry.stdout

    done = story.billing("rerate", *RANGE, *WHY, "--account", user.uuid, "--json", **price)
    assert (done.exit_code, done.json["job"], done.json["status"]) == (0, "rerate", "ok")
    assert (done.json["corrections"], done.json["amount"]) == (1, "0.200000000")
    assert done.json["pricing_rule_version"] == "v2"
    assert done.json["accounts"] == [
        {"account_uuid": user.uuid, "corrections": 1, "amount": "0.200000000"}
    ]
    assert story.paid(user) == Decimal("0.3")

    again = story.billing("rerate", *RANGE, *WHY, "--json", **price)
    assert (again.exit_code, again.json["corrections"], again.json["amount"]) == (0, 0, "0")
    assert story.rows("SELECT status FROM billing.runs WHERE job = 'rerate'") == [("ok",)] * 2


def test_wrong_usage_ends_with_2_and_one_line(story: Story) -> None:
    """What can't be asked for is told before anything is read."""
    backwards = ("--since", "2026-04-08T13:00:00Z", "--until", "2026-04-08T12:00:00Z")
    told = story.billing("rerate", *backwards, *WHY, "--json")
    assert (told.exit_code, told.json["error"]["message"]) == (2, "--since is after --until")
    stranger = story.billing("rerate", *RANGE, *WHY, "--account", ALICE)
    assert (stranger.exit_code, stranger.stderr) == (2, f"Error: unknown account {ALICE}\n")
    assert story.billing("rerate", *RANGE, *WHY, "--source", "mars-1").exit_code == 2
    assert story.billing("rerate", *RANGE, "--pricing-rule-version", "v2").exit_code == 2


def result(*accounts: AccountAmount, notes: tuple[str, ...] = ()) -> RerateResult:
    """Return the result of a run that changed these accounts."""
    return RerateResult(
        "rerate",
        "",
        "ok",
        START,
        START,
        written_minutes=2,
        corrections=sum(account.corrections for account in accounts),
        amount=sum((account.amount for account in accounts), Decimal(0)),
        pricing_rule_version="v2",
        accounts=accounts,
        notes=notes,
    )


def test_accounts_are_listed_by_the_size_of_their_difference() -> None:
    """Whoever gets money back has a minus, and the head says what all together pay."""
    text = text_of(
        rerate_parts(
            result(
                AccountAmount(ALICE, 2, Decimal("0.5")),
                AccountAmount(BOB, 1, Decimal("-0.75")),
                notes=("some are left alone",),
            )
        )
    )
    head, *rest = text.splitlines()
    assert head.startswith("rerate: ok - 3 charges of 2 minutes re-rated by version v2")
    assert head.endswith("2 accounts: 0.25 less in total")
    assert rest == [
        "",
        "ACCOUNT                               CHARGES  PAYS MORE",
        f"{BOB}        1      -0.75",
        f"{ALICE}        2       +0.5",
        "note: some are left alone",
    ]
