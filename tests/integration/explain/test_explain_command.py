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
    assert done.stdout.count("charge ") == 2


def test_an_unknown_account_ends_with_2_and_one_line(story: Story, user: User) -> None:
    """With --json the error is in the object."""
    nobody = story.fleet.new_uuid()

    plain = story.billing("explain", nobody)
    as_json = story.billing("explain", nobody, "--json")

    assert user.uuid != nobody
    assert (plain.exit_code, plain.stdout) == (2, "")
    assert plain.stderr == (
        f"Error: unknown account {nobody}: no account, proxy uuid or evidence has it\n"
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
    done = story.billing("explain", *(one.format(user=user.uuid) for one in arguments))

    assert (done.exit_code, done.stdout) == (2, "")
    assert reason in done.stderr


def test_a_database_that_is_away_ends_with_69(story: Story, user: User) -> None:
    """Nobody listens there."""
    done = story.billing(
        "explain", user.uuid, "--json", DATABASE_URL="postgresql://nobody@127.0.0.1:1/none"
    )

    assert (done.exit_code, done.json["status"]) == (69, "error")


def test_a_database_without_our_tables_ends_with_78(
    story: Story, user: User, empty_database_url: str
) -> None:
    """The error says what to do."""
    done = story.billing("explain", user.uuid, DATABASE_URL=empty_database_url)

    assert done.exit_code == 78
    assert "billing migrate" in done.stderr
