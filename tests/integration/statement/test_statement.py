"""A statement adds up, proves its sealed days, and shows every altered number."""

from __future__ import annotations

import json
import re
from copy import deepcopy
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from billing_cli.cli.statement_html import statement_html, statement_in
from billing_cli.core.statements import check_statement, content_sha256
from billing_cli.features.statement.text import statement_csv, statement_text
from billing_cli.features.verify.statement import statement_report_text, verify_statement
from tests.integration.statement.conftest import HOSTILE_TAG, REVERSAL_REASON
from tests.support.forks import run_forked

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.integration.statement.conftest import Month

NUMBER = re.compile(r"\d+")


def test_balances_and_all_amounts_add_up(month: Month) -> None:
    """The balance that the account began with, and what no row explains, are entries."""
    made = month.statement
    others = {one["kind"]: Decimal(one["amount"]) for one in made["other_entries"]}

    assert others == {"initial_balance": Decimal(5), "unexplained_change": Decimal("2.5")}
    assert Decimal(made["closing_balance"]) == Decimal(made["amount"]) + Decimal("7.5")
    assert made["opening_balance"] == "0.000000000"
    balance = month.story.rows(
        "SELECT current_balance FROM public.account_quota_states WHERE account_uuid = %s",
        month.account,
    )
    assert float(made["closing_balance"]) == balance[0][0]
    assert sum(node["rated_bytes"] for node in made["nodes"]) == made["rated_bytes"] > 0
    assert made["currency"] == "EUR"


def test_the_result_names_what_only_the_file_says(month: Month, tmp_path: Path) -> None:
    """It can be altered together with the hash; whoever pays should not take it for proven."""
    altered = json.loads(month.json_file.read_text())
    altered["currency"] = "USD"
    altered["quota"]["remaining_before"] += 1
    for key in ("opening_balance", "closing_balance"):
        altered[key] = f"{Decimal(altered[key]) + 1:.9f}"
    altered["proof"]["sha256"] = content_sha256(altered)
    file = tmp_path / "altered.json"
    file.write_text(json.dumps(altered))
    report = verify_statement(file, [month.key_file])
    assert report.findings == ()
    (line,) = [line for line in statement_report_text(report).splitlines() if "not proven" in line]
    for name in ("currency", "quota", "opening and closing balance", "other entries", "left out"):
        assert name in line


def test_corrections_are_shown_with_their_reason(month: Month) -> None:
    """In the day on which they were booked."""
    reasons = {entry["reason"] for day in month.statement["days"] for entry in day["entries"]}

    assert reasons == {"", "agreed in ticket 7", f"source jp-1 reversed: {REVERSAL_REASON}"}


def test_a_customer_verifies_it_without_any_access(month: Month) -> None:
    """Days that are not sealed yet are named; configuration and database are not asked for."""
    for file in (month.json_file, month.html_file):
        asked = ("verify", "--json", "--statement", str(file), "--public-key", str(month.key_file))
        done = run_forked(asked, {})
        report = json.loads(done.stdout)
        assert (done.code, report["findings"]) == (0, [])
        assert len(report["sealed_days"]) == 2
        assert len(report["unsealed_days"]) == 1


def test_json_names_the_file_that_was_written(month: Month, tmp_path: Path) -> None:
    """One object on stdout, the statement in the file; without --json, stdout stays empty."""
    file = tmp_path / "statement.json"
    asked = ("statement", month.account, "--month", "2026-11", "--out", str(file))
    done = month.story.billing(*asked, "--json")
    assert done.json == {"job": "statement", "status": "ok", "error": None, "file": str(file)}
    assert json.loads(file.read_text())["account_uuid"] == month.account
    assert file.stat().st_mode & 0o777 == 0o600
    assert month.story.billing(*asked, "--format", "json").stdout == ""


def test_a_page_holds_each_character_as_it_is(month: Month) -> None:
    """Also those beyond U+FFFF that can't be printed, as in the text of another service."""
    statement = json.loads(month.json_file.read_text())
    statement["currency"] = "<&\u200b\U000e0001\U0001f600"
    data = statement_in(statement_html(statement))
    assert data is not None
    assert json.loads(data) == statement


@pytest.mark.parametrize("kind", ["json_file", "html_file"])
def test_every_altered_number_is_found(month: Month, tmp_path: Path, kind: str) -> None:
    """One after the other, wherever it stands in the file: also in times, names and hashes."""
    text = getattr(month, kind).read_text()
    file = tmp_path / "altered"
    altered = 0
    for found in NUMBER.finditer(text):
        other = str((int(found[0]) + 1) % 10 ** len(found[0])).zfill(len(found[0]))
        file.write_text(text[: found.start()] + other + text[found.end() :])
        assert verify_statement(file, [month.key_file]).findings, text[found.start() - 40 :][:80]
        altered += 1
    assert altered > 200


def test_sealed_days_are_proven_and_not_only_added_up(month: Month) -> None:
    """Whoever alters a number consistently, hash included, still contradicts the signed log."""
    for altered in _consistently_altered(month.statement):
        assert check_statement(altered).problems


def test_a_statement_signed_by_another_key_is_found(month: Month, tmp_path: Path) -> None:
    """A log of somebody else proves nothing."""
    from billing_cli.signatures import write_key_pair  # noqa: PLC0415

    other, _ = write_key_pair(tmp_path / "other", "billing/log")

    report = verify_statement(month.json_file, [other])

    assert [finding.kind for finding in report.findings] == ["signature"]


def test_external_text_stays_text(month: Month) -> None:
    """Names neither end a script, nor move a cursor, nor become a formula."""
    hostile = deepcopy(month.statement)
    entry = hostile["days"][0]["entries"][0]
    entry["reason"], entry["inbound_tag"] = "\x1b[2J\u202e", "=1+1"
    shown = (statement_text(hostile), statement_csv(hostile), statement_html(hostile))

    assert month.html_file.read_text().count("<script") == 1
    assert not any(character in text for text in shown for character in "\x1b\u202e")
    assert ",'=1+1," in shown[1]
    assert HOSTILE_TAG in {node["inbound_tag"] for node in month.statement["nodes"]}


@pytest.mark.parametrize("text", ["\\ud800", "\\u001b[2J", "\\u202e"])
@pytest.mark.parametrize("key", ["account_uuid", "month", "reason", "inbound_tag"])
def test_text_of_a_file_is_shown_without_what_no_terminal_takes(
    month: Month, tmp_path: Path, key: str, text: str
) -> None:
    """Half a character, and such as move a cursor, are findings in plain text."""
    file = tmp_path / "hostile"
    for whole in ('{"account_uuid": "", "month": "2026-04"}', month.json_file.read_text()):
        altered = re.sub(f'"{key}": ?"[^"]*"', lambda _: f'"{key}": "{text}"', whole, count=1)
        file.write_text(altered)
        report = verify_statement(file, [])
        assert report.findings
        shown = statement_report_text(report)
        assert shown.encode().decode() == shown
        assert all(line.isprintable() for line in shown.splitlines())


def _consistently_altered(statement: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Move a byte between entries of a sealed day, and a cent into its balances."""
    for number, day in enumerate(statement["days"]):
        if not day["sealed"]:
            continue
        first = deepcopy(statement)
        entries = first["days"][number]["entries"]
        entries[0]["usage_day"] = "2026-04-01"
        second = deepcopy(statement)
        second["days"][number]["balance_after"] = "1.000000000"
        for altered in (first, second):
            altered["proof"]["sha256"] = content_sha256(altered)
            yield altered


def test_a_number_that_readers_may_show_differently_is_found(month: Month, tmp_path: Path) -> None:
    """A key that is there twice, of which one value is right; and -0."""
    text = month.json_file.read_text()
    first = text.index('"amount"')
    file = tmp_path / "altered"
    for altered in (
        text[:first] + '"amount": "-1.000000000", ' + text[first:],
        re.sub(r"([\[ ])0\b(?=[,\n])", r"\1-0", text, count=1),
    ):
        assert altered != text
        file.write_text(altered)
        assert verify_statement(file, [month.key_file]).findings


def test_a_reversal_is_shown_with_its_reason(month: Month) -> None:
    """As a correction of the day on which it was booked, by which the account gets money back."""
    reversed_ = [
        entry
        for day in month.statement["days"]
        for entry in day["entries"]
        if entry["reason"].endswith(REVERSAL_REASON)
    ]
    assert {entry["entry_type"] for entry in reversed_} == {"traffic_adjustment"}
    assert sum(Decimal(entry["amount"]) for entry in reversed_) > 0
    assert sum(entry["rated_bytes"] for entry in reversed_) < 0
    for shown in (statement_text(month.statement), statement_csv(month.statement)):
        assert REVERSAL_REASON in shown
