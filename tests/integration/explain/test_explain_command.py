"""`billing explain` as a process: what it prints, and how it ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from billing_cli.simulator.traffic import User
    from tests.support.story import Story


@pytest.fixture
def user(story: Story) -> User:
    """Return a user with two charged minutes."""
    made = story.add_user()
    stream = story.add_node("jp-1").add_stream(made.uuid, "xhttp")
    story.minute()
    story.minute((stream, 10, 20))
    story.minute((stream, 1, 2))
    story.collect()
    return made


def test_the_story_is_one_json_object(story: Story, user: User) -> None:
    """Amounts, prices and balances are decimal strings, times are RFC 3339."""
    done = story.billing("explain", user.uuid, "--minute", "2026-04-08T12:01:59Z", "--json")

    assert done.exit_code == 0
    told = done.json
    assert (told["job"], told["status"], told["error"]) == ("explain", "ok", None)
    assert (told["account_uuid"], told["total_minutes"]) == (user.uuid, 1)
    (minute,) = told["minutes"]
    assert minute["minute"] == "2026-04-08T12:01:00Z"
    (line,) = minute["lines"]
    (entry,) = line["entries"]
    assert (entry["amount_delta"], entry["product"]) == ("-0.030000000", "0.030")
    assert (entry["balance_before"], entry["balance_after"]) == ("5.000000000", "4.970000000")


def test_the_story_is_text_by_default(story: Story, user: User) -> None:
    """Standard output holds the story and nothing else."""
    done = story.billing("explain", user.proxy_uuid)

    assert done.exit_code == 0
    assert done.stdout.startswith(f"account {user.uuid} ({user.proxy_uuid} is its proxy uuid)\n")
    assert "total: 33 bytes = 0 included + 33 rated, amount 0.033000000\n" in done.stdout
    assert "balance: 5.000000000 before, -0.033000000 by these" in done.stdout
    assert done.stdout.count("charge ") == 0
    assert story.billing("explain", user.uuid, "--minutes").stdout.count("charge ") == 2


def test_totals_are_by_day_node_and_inbound_tag(story: Story, user: User) -> None:
    """In JSON and in CSV, where each row is a day on a tag of a node."""
    totals = story.billing("explain", user.uuid, "--json", BILLING_CURRENCY="EUR").json["totals"]
    sums = {"total_bytes": 33, "included_bytes": 0, "rated_bytes": 33, "amount": "0.033000000"}
    assert totals["by_day"] == [{"day": "2026-04-08", **sums}]
    assert totals["by_node"] == [{"node_id": "prod:jp-1.svc.plus", **sums}]
    assert totals["by_inbound_tag"] == [{"inbound_tag": "xhttp", **sums}]
    balances = totals["opening_balance"], totals["closing_balance"], totals["other_changes"]
    assert balances == ("5.000000000", "4.967000000", "0.000000000")
    as_csv = story.billing("explain", user.uuid, "--output", "csv").stdout
    assert as_csv == (
        "day,node,inbound_tag,bytes,included,rated,amount\n"
        "2026-04-08,prod:jp-1.svc.plus,xhttp,33,0,33,0.033000000\n"
    )


def test_an_unresolved_uuid_says_what_waits_for_an_account(story: Story) -> None:
    """Bytes, since when and where; nothing is charged, and that is no error."""
    uuid = story.fleet.new_uuid()
    stream = story.add_node("jp-1").add_stream(uuid, "xhttp")
    story.minute()
    story.minute((stream, 1024, 1024))
    story.collect()
    done = story.billing("explain", uuid)
    assert done.exit_code == 0
    assert done.stdout.startswith(f"{uuid} is no account's uuid or proxy uuid yet\n")
    where = "pending: 2.0 KiB since 2026-04-08T12:00:00Z on node prod:jp-1.svc.plus, inbound tag"
    assert where in done.stdout
    told = story.billing("explain", uuid, "--json").json
    assert (told["known_by"], told["account_uuid"]) == ("unresolved", None)
    assert told["waiting"][0]["total_bytes"] == 2048


def test_a_start_in_the_future_is_refused(story: Story, user: User) -> None:
    """A range that can hold nothing is a mistake, and no empty answer."""
    done = story.billing("explain", user.uuid, "--since", "2099-01-01T00:00:00Z")
    assert done.exit_code == 2
    assert done.stderr.startswith("Error: --since is in the future: it is 2")


def test_an_unknown_account_ends_with_2_and_one_line(story: Story, user: User) -> None:
    """With --json the error is in the object."""
    nobody = story.fleet.new_uuid()

    plain = story.billing("explain", nobody)
    as_json = story.billing("explain", nobody, "--json")

    assert user.uuid != nobody
    assert (plain.exit_code, plain.stdout) == (2, "")
    assert plain.stderr == (
        f"Error: unknown account {nobody}: no account, proxy uuid or evidence has it; "
        "`billing streams --unresolved` lists uuids without an account\n"
    )
    assert (as_json.exit_code, as_json.json["status"]) == (2, "error")
    assert nobody in as_json.json["error"]["message"]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("no-uuid",), "no-uuid"),
        ((), "ACCOUNT"),
        (("{user}", "--minute", "last week"), "not an RFC 3339 time"),
        (
            ("{user}", "--since", "2026-04-08T13:00:00Z", "--until", "2026-04-08T12:00:00Z"),
            "--since is after --until",
        ),
        (
            ("{user}", "--minute", "2026-04-08T12:00:00Z", "--since", "2026-04-08T12:00:00Z"),
            "--minute excludes --since and --until",
        ),
        (("{user}", "--limit", "0"), "--limit"),
    ],
)
def test_what_can_not_be_asked_for_ends_with_2(
    story: Story, user: User, arguments: tuple[str, ...], reason: str
) -> None:
    """The error says what is wrong."""
    done = story.billing("explain", *(argument.format(user=user.uuid) for argument in arguments))

    assert (done.exit_code, done.stdout) == (2, "")
    assert reason in done.stderr
