"""`billing simulate`: what a range would have cost, without a trace."""

from __future__ import annotations

import csv
import io
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from billing_cli.core.times import format_rfc3339
from billing_cli.features.rerate.job import Order, rerate
from billing_cli.features.simulate.packages import read_packages
from billing_cli.features.simulate.report import Question, run_simulation
from billing_cli.simulator.accounts import save_profile
from tests.support.story import MINUTE, START

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.story import Story, User

NEW = Decimal("0.003")


@pytest.fixture
def users(story: Story) -> list[User]:
    """Return two users on two nodes, billed for five minutes; the second has a package."""
    found = [story.add_user(), story.add_user()]
    save_profile(story.connection, found[1].uuid, line_multiplier=2.0)
    story.connection.execute("UPDATE account_billing_profiles SET package_name = 'basic'")
    nodes = [story.add_node(name) for name in ("jp-1", "us-1")]
    streams = [node.add_stream(user.uuid, "xhttp") for node in nodes for user in found]
    story.quota = 50
    story.minute()
    for number in range(1, 6):
        story.minute(*((stream, 7 * number, 11 * number) for stream in streams))
    story.collect()
    return found


def ask(story: Story, price: Decimal | None = None, path: Path | None = None) -> Any:
    """Simulate all that was told."""
    packages = {} if path is None else read_packages(str(path))
    return run_simulation(story.context(), Question(START, story.now + MINUTE, price, packages))


def test_the_present_price_costs_what_was_paid(story: Story, users: list[User]) -> None:
    """To the last place, for each account."""
    found = ask(story, story.price)
    assert {name: cost.simulated_amount for name, cost in found.accounts.items()} == {
        user.uuid: story.paid(user) for user in users
    }
    assert found.total.difference == 0


def test_it_foretells_what_rerate_charges(story: Story, users: list[User]) -> None:
    """The same rules; and nothing is written by the simulation."""
    before = story.facts()
    found = ask(story, NEW)
    assert story.facts() == before
    story.price = NEW
    done = rerate(story.context(), Order(START, story.now + MINUTE, "v2", "new prices"))
    assert done.amount == found.total.difference > 0
    assert {account.account_uuid: account.amount for account in done.accounts} == {
        user.uuid: found.accounts[user.uuid].difference for user in users
    }


def test_a_package_has_prices_of_its_own(story: Story, users: list[User], tmp_path: Path) -> None:
    """Others stay what they are; multipliers that the file does not name, too."""
    path = tmp_path / "packages.toml"
    path.write_text("[basic]\nprice_per_byte = 0.01\n")
    other, basic = (ask(story, path=path).accounts[user.uuid] for user in users)
    assert other.difference == 0
    assert basic.simulated_amount == 10 * basic.amount > 0


@pytest.mark.parametrize(("price", "expected"), [("0", 0), ("1", 2 * (540 - 100))])
def test_a_package_has_a_quota_of_its_own(
    story: Story, users: list[User], tmp_path: Path, price: str, expected: int
) -> None:
    """The range begins with the whole of it; a price of 0 makes the package free."""
    path = tmp_path / "packages.toml"
    path.write_text(f"[basic]\nprice_per_byte = {price}\nincluded_quota_bytes = 100\n")
    basic = ask(story, path=path).accounts[users[1].uuid]
    assert (basic.total_bytes, basic.simulated_amount) == (540, expected)


def test_the_quota_is_whole_again_at_each_renewal(
    story: Story, users: list[User], tmp_path: Path
) -> None:
    """As it is recorded: here in the fourth minute with traffic."""
    story.connection.execute(
        "INSERT INTO billing.quota_periods (account_uuid, period_start, quota_bytes,"
        " included_before, former_quota_bytes, run_id) VALUES (%s, %s, 0, 0, 0, gen_random_uuid())",
        [users[1].uuid, START + timedelta(minutes=4)],
    )
    path = tmp_path / "packages.toml"
    path.write_text("[basic]\nprice_per_byte = 1\nincluded_quota_bytes = 100\n")
    basic = ask(story, path=path).accounts[users[1].uuid]
    assert basic.simulated_amount == 2 * (540 - 200)
    story.connection.execute("DELETE FROM billing.quota_periods")


def test_csv_lists_every_account(story: Story, users: list[User]) -> None:
    """Plain numbers, and the same as in the JSON object."""
    options = ("--price", "0.003", "--since", format_rfc3339(START))
    until = ("--until", format_rfc3339(story.now + MINUTE))
    done = story.billing("simulate", *options, *until, "--output", "csv")
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    shown = story.billing("simulate", *options, *until, "--json").json
    assert shown["accounts"] == [row | {"total_bytes": int(row["total_bytes"])} for row in rows]
    assert {row["account_uuid"] for row in rows} == {user.uuid for user in users}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            "[basic]\nprice_per_gb = 1",
            "basic.price_per_gb: unknown key (did you mean 'price_per_gib'?)",
        ),
        ("[basic]\nprice_per_byte = -1", "basic.price_per_byte: must be >= 0"),
        ("[basic]\nprice_per_byte = 1\nprice_per_gib = 1", "price_per_byte or price_per_gib"),
        ("basic = 1", "basic: must be in the table of a package: [NAME]"),
        ("[basic", "not TOML"),
    ],
)
def test_a_wrong_file_is_a_usage_error(
    story: Story, tmp_path: Path, text: str, reason: str
) -> None:
    """The error names file, package and key."""
    path = tmp_path / "packages.toml"
    path.write_text(text)
    done = story.billing("simulate", "--packages", str(path), "--since", format_rfc3339(START))
    assert done.exit_code == 2
    assert f"--packages {path}: " in done.stderr
    assert reason in done.stderr


def test_an_unknown_account_is_a_usage_error(story: Story, users: list[User]) -> None:
    """As for rerate. One that exists may have no charges, and a deleted one may have some."""
    idle, stranger = story.add_user(), story.fleet.new_uuid()
    options = ("simulate", "--price", "1", "--since", format_rfc3339(START), "--until")
    options = (*options, format_rfc3339(story.now + MINUTE), "--json", "--account")
    refused = story.billing(*options, stranger, "--account", users[0].uuid)
    assert (refused.exit_code, refused.json["error"]["message"]) == (
        2,
        f"unknown account {stranger}",
    )
    allowed = story.billing(*options, idle.uuid)
    assert (allowed.exit_code, allowed.json["accounts"]) == (0, [])
    story.connection.execute("DELETE FROM public.users WHERE uuid = %s", [users[0].uuid])
    deleted = story.billing(*options, users[0].uuid)
    assert (deleted.exit_code, len(deleted.json["accounts"])) == (0, 1)


@pytest.mark.parametrize("output", ["table", "csv", "json"])
@pytest.mark.usefixtures("users")
def test_a_package_that_no_profile_has_is_noted(story: Story, tmp_path: Path, output: str) -> None:
    """It may be new, or misspelt. CSV and JSON leave notes to stderr."""
    path = tmp_path / "packages.toml"
    path.write_text("[basic]\n[basci]\n[gold]\n")
    until = format_rfc3339(story.now + MINUTE)
    options = ("--packages", str(path), "--since", format_rfc3339(START), "--until", until)
    done = story.billing("simulate", *options, "--output", output)
    notes = (
        "note: no profile has the package 'basci' (did you mean 'basic'?)\n"
        "note: no profile has the package 'gold'\n"
    )
    assert done.exit_code == 0
    assert (done.stdout if output == "table" else done.stderr).endswith(notes)
    assert ("note:" in done.stdout) == (output == "table")


def test_something_has_to_be_different(story: Story) -> None:
    """Neither a price nor packages is a usage error."""
    done = story.billing("simulate", "--since", format_rfc3339(START))
    assert (done.exit_code, "--price or --packages" in done.stderr) == (2, True)
