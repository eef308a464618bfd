"""A statement verifies by itself: sums, shape, hash, and the proofs of its sealed days."""

from __future__ import annotations

import json
from copy import deepcopy
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from billing_cli.core.canonical import charge_line
from billing_cli.core.merkle import inclusion_ranges, leaf_hash, levels_of, proof_of, tree_root
from billing_cli.core.model import BucketKey, Charge
from billing_cli.core.notes import Checkpoint
from billing_cli.core.seals import AccountDay, SealedDay, account_leaf, day_leaf
from billing_cli.core.statements import (
    DayProof,
    check_statement,
    content_sha256,
    is_proven,
    nodes_of,
    proof_object,
    totals_of,
)
from billing_cli.signatures import generate_key, sign_checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Statement = dict[str, Any]

ACCOUNT = "11111111-1111-1111-1111-111111111111"
OTHER = "22222222-2222-2222-2222-222222222222"
SALT = bytes(range(32))
ACCOUNTS, POSITION, LOG_SIZE = 5, 2, 7
SIGNER, _ = generate_key("example.com/log")


def content_of(number: int, balance: int) -> Statement:
    """Return an account's day: a charge of 1 on one node, and one of 2 on another."""
    day = AccountDay(ACCOUNT, date(2026, 4, number))
    for place, (node, included, rated, amount) in enumerate(
        (("prod:us-1", 5, 10, -1), ("prod:jp-1", 7, 20, -2))
    ):
        at = datetime(2026, 4, number, 12, place, tzinfo=UTC)
        charge = Charge(
            ledger_id=f"33333333-3333-3333-3333-3333333333{number}{place}",
            key=BucketKey(at, node, ACCOUNT, "eu", "xhttp"),
            included_bytes=included,
            rated_bytes=rated,
            price_per_byte=Decimal("1E-9"),
            multiplier=Decimal(1),
            amount_delta=Decimal(amount),
            quota_before=100,
            balance_before=Decimal(balance - place),
            balance_after=Decimal(0),
        )
        day.add(charge_line(charge, "v1").encode(), (1, place))
    return day.content()


def proofs_of(contents: list[Statement]) -> tuple[list[DayProof], bytes]:
    """Seal days: return the proof of each, and the root of the log that has their leaves."""
    sealed = []
    for content in contents:
        leaves = [leaf_hash(bytes([number])) for number in range(ACCOUNTS)]
        leaves[POSITION] = account_leaf(content, SALT)
        day = SealedDay(date.fromisoformat(content["day"]), ACCOUNTS, b"s" * 32, tree_root(leaves))
        nodes = dict(levels_of(leaves))
        sealed.append((day, proof_of(inclusion_ranges(POSITION, ACCOUNTS), nodes)))
    log = [leaf_hash(b"seal %d" % number) for number in range(LOG_SIZE)]
    for number, (day, _) in enumerate(sealed):
        log[2 * number + 1] = day_leaf(day)
    nodes = dict(levels_of(log))
    proofs = []
    for number, (day, day_proof) in enumerate(sealed):
        leaf = 2 * number + 1
        log_proof = proof_of(inclusion_ranges(leaf, LOG_SIZE), nodes)
        proofs.append(DayProof(day, SALT, POSITION, leaf, day_proof, log_proof))
    return proofs, tree_root(log)


CONTENTS = [content_of(8, 20), content_of(9, 17), content_of(10, 64)]
PROOFS, ROOT = proofs_of(CONTENTS[:2])
NOTE = sign_checkpoint(Checkpoint("example.com/log", LOG_SIZE, ROOT), SIGNER)


def make_whole() -> Statement:
    """Make a statement of two sealed days and one that is not sealed yet, with a top-up of 50."""
    days = [
        {**content, "sealed": is_sealed}
        for content, is_sealed in zip(deepcopy(CONTENTS), (True, True, False), strict=True)
    ]
    statement: Statement = {
        "format": 1,
        "account_uuid": ACCOUNT,
        "month": "2026-04",
        "currency": "EUR",
        "opening_balance": "20.000000000",
        "closing_balance": "61.000000000",
        **totals_of(days),
        "quota": {"remaining_before": 100, "remaining_after": None},
        "other_entries": [
            {"at": "2026-04-09T13:00:00Z", "kind": "topup", "amount": "50.000000000", "reason": ""}
        ],
        "days": days,
        "nodes": nodes_of(days),
        "proof": proof_object(NOTE, PROOFS),
    }
    return hashed(statement)


def hashed(statement: Statement) -> Statement:
    """Return the statement with the hash that it would have, had we made it."""
    statement["proof"]["sha256"] = content_sha256(statement)
    return statement


WHOLE = json.dumps(make_whole())


def whole() -> Statement:
    """Return a copy of the statement."""
    statement: Statement = json.loads(WHOLE)
    return statement


def places(value: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield where each value of a JSON object is, objects and lists included."""
    parts = value.items() if isinstance(value, dict) else enumerate(value)
    for key, part in parts:
        yield (*above, key)
        if isinstance(part, dict | list):
            yield from places(part, (*above, key))


def with_other(place: tuple[Any, ...], change: Callable[[Any], Any]) -> Statement:
    """Return a statement in which one value is changed, and nothing else."""
    statement = whole()
    part = statement
    for key in place[:-1]:
        part = part[key]
    part[place[-1]] = change(part[place[-1]])
    return statement


PLACES = list(places(whole()))


def test_a_statement_as_it_was_made_has_no_problem() -> None:
    """It tells which days are proven, and by which checkpoint, also once it was a file."""
    check = check_statement(whole())
    assert check.problems == ()
    assert (check.sealed_days, check.unsealed_days) == (
        ("2026-04-08", "2026-04-09"),
        ("2026-04-10",),
    )
    assert check.note is not None
    assert check.note.checkpoint == Checkpoint("example.com/log", LOG_SIZE, ROOT)


def test_a_statement_shows_the_sums_of_its_days() -> None:
    """As a whole, and by node in the order of their names."""
    statement = whole()
    assert totals_of([]) == {"included_bytes": 0, "rated_bytes": 0, "amount": "0.000000000"}
    shown = [statement[key] for key in ("included_bytes", "rated_bytes", "amount")]
    assert shown == [36, 90, "-9.000000000"]
    assert [tuple(node.values()) for node in statement["nodes"]] == [
        ("prod:jp-1", "xhttp", 21, 60, "-6.000000000"),
        ("prod:us-1", "xhttp", 15, 30, "-3.000000000"),
    ]


def test_nodes_are_in_order_whatever_day_they_were_used_on_first() -> None:
    """By node, then by inbound tag."""
    names = [("b", "x"), ("a", "y"), ("a", "x")]
    entries = [
        {"node_id": node, "inbound_tag": tag, "included_bytes": 0, "rated_bytes": 1, "amount": "-1"}
        for node, tag in names
    ]
    found = nodes_of([{"entries": [entry]} for entry in entries])
    assert [(one["node_id"], one["inbound_tag"]) for one in found] == sorted(names)


def test_a_month_without_any_day_has_no_checkpoint_and_no_problem() -> None:
    """Nothing was booked, so nothing is to be proven."""
    statement = whole() | {"days": [], "nodes": [], **totals_of([])}
    statement |= {"closing_balance": "70.000000000", "proof": proof_object(None, [])}
    check = check_statement(hashed(statement))
    assert check == ((), (), (), None)


@pytest.mark.parametrize("place", PLACES, ids=str)
def test_each_altered_value_is_found(place: tuple[Any, ...]) -> None:
    """Whatever it is: the hash of the whole tells, and a value of another type is no statement."""
    for other in (None, 7, "7", 1.5, True, [], {}, [7], {"x": 7}):
        altered = with_other(place, lambda _, other=other: deepcopy(other))
        if json.dumps(altered) != WHOLE:
            assert check_statement(altered).problems, other


def test_a_statement_with_another_label_is_not_the_one_that_was_made() -> None:
    """What no sum and no proof covers is covered by the hash of the whole."""
    altered = with_other(("currency",), lambda _: "USD")
    assert check_statement(altered).problems == (
        "the statement is not the one that its hash was made of",
    )


def is_shown_by_a_leaf(place: tuple[Any, ...]) -> bool:
    """Tell whether a value is of a sealed day or of its proof, but for the hash of the whole."""
    return place[:2] in {("days", 0), ("days", 1)} or place[0] == "proof"


@pytest.mark.parametrize("place", [one for one in PLACES if is_shown_by_a_leaf(one)], ids=str)
def test_an_altered_value_of_a_sealed_day_is_found_though_the_hash_was_made_again(
    place: tuple[Any, ...],
) -> None:
    """The log that was signed does not hold it."""
    for change in (
        lambda value: value + 1 if type(value) is int else value,
        lambda value: not value if isinstance(value, bool) else value,
        lambda value: value.replace("1", "2", 1) if isinstance(value, str) else value,
        lambda value: value[:-1] if isinstance(value, list) else value,
    ):
        altered = with_other(place, change)
        if altered != whole():
            assert (
                place == ("proof", "sha256")
                or is_damage_of_note(place)
                or (check_statement(hashed(altered)).problems)
            )


def is_damage_of_note(place: tuple[Any, ...]) -> bool:
    """Tell whether the signed text is altered, which its signature tells."""
    return place == ("proof", "checkpoint")


@pytest.mark.parametrize(
    "place", [one for one in PLACES if isinstance(one[-1], str) and one[0] != "proof"], ids=str
)
def test_each_key_is_needed_and_no_other_may_be_there(place: tuple[Any, ...]) -> None:
    """A key that is left out or added is damage, whatever the hash says."""
    for is_left_out in (True, False):
        altered = whole()
        part: Any = altered
        for key in place[:-1]:
            part = part[key]
        if is_left_out:
            del part[place[-1]]
        else:
            part["more"] = 1
        (problem,) = check_statement(hashed(altered)).problems
        assert problem.startswith("the statement is damaged: ")


MONEY = {"opening_balance", "closing_balance", "amount", "balance_before", "balance_after"}
NOT_TYPED = {"format", "quota", "proof", "entries", "sha256", "checkpoint", "hashes"}
TYPED_OF_PROOF = {"position", "accounts", "leaf_number"}


@pytest.mark.parametrize(
    "place",
    [
        place
        for place in PLACES
        if isinstance(place[-1], str)
        and place[-1] not in NOT_TYPED
        # Names of nodes are compared with those of the days.
        and not (place[0] == "nodes" and place[-1] in {"node_id", "inbound_tag"})
        and (place[0] != "proof" or place[-1] in TYPED_OF_PROOF)
    ],
    ids=str,
)
def test_each_value_has_its_type(place: tuple[Any, ...]) -> None:
    """Numbers are no text, text is no number, and money has nine digits."""
    key = place[-1]
    if key in MONEY:
        changed, reason = with_other(place, lambda _: "1.0"), "is no amount of money"
    else:
        changed = with_other(place, lambda value: 7 if isinstance(value, str) else "7")
        reason = "is not of its type"
    assert list(check_statement(hashed(changed)).problems) == damaged(f"{key} {reason}")


def damaged(reason: str) -> list[str]:
    """Return the problem of a statement that is none."""
    return [f"the statement is damaged: {reason}"]


NOT_HELD = "the log that was signed does not hold it as it is"
UNSEALED = ("days", 2)


@pytest.mark.parametrize(
    ("place", "change", "problems"),
    [
        pytest.param(("format",), lambda _: 2, damaged("format 2 is not known"), id="format"),
        pytest.param(
            ("rated_bytes",), lambda size: size + 1, ["rated_bytes is not the sum of the days"],
            id="a sum of the days",
        ),
        pytest.param(
            (*UNSEALED, "charges"), lambda count: count + 1,
            ["day 2026-04-10: charges is not the sum of its entries"], id="a count of charges",
        ),
        pytest.param(
            (*UNSEALED, "entries", 0, "charges"), lambda count: count + 1,
            ["day 2026-04-10: charges is not the sum of its entries"], id="an entry's charges",
        ),
        pytest.param(
            (*UNSEALED, "entries", 0, "node_id"), lambda _: "prod:x",
            ["nodes are not the sums of the days by node and inbound tag"], id="another node",
        ),
        pytest.param(
            ("nodes",), lambda nodes: nodes[::-1],
            ["nodes are not the sums of the days by node and inbound tag"], id="order of nodes",
        ),
        pytest.param(
            ("opening_balance",), lambda _: "21.000000000",
            ["closing_balance is not opening_balance and all amounts"], id="opening balance",
        ),
        pytest.param(
            ("other_entries", 0, "amount"), lambda _: "51.000000000",
            ["closing_balance is not opening_balance and all amounts"], id="another entry",
        ),
        pytest.param(
            ("month",), lambda _: "2026-0", ["a day is not of the month"], id="another month"
        ),
        pytest.param(
            ("account_uuid",), lambda _: OTHER, ["a day is of another account"], id="other account"
        ),
        pytest.param(
            ("days",), lambda days: [days[1], days[0], days[2]], ["days are not in their order"],
            id="order of days",
        ),
        pytest.param(
            (*UNSEALED, "sealed"), lambda _: True,
            ["day 2026-04-10: it is sealed either with a proof, or not at all"],
            id="a day that is said to be sealed",
        ),
        pytest.param(
            ("proof", "days"), lambda days: days[:1],
            ["day 2026-04-09: it is sealed either with a proof, or not at all"],
            id="a sealed day without a proof",
        ),
        pytest.param(
            ("days", 1, "sealed"), lambda _: False,
            ["day 2026-04-09: it is sealed either with a proof, or not at all"],
            id="a proof of a day that is not said to be sealed",
        ),
        pytest.param(
            ("proof", "checkpoint"), lambda _: None, ["there is no checkpoint for the proofs"],
            id="no checkpoint",
        ),
        pytest.param(
            ("days", 0, "balance_after"), lambda _: "17.000000001", [f"day 2026-04-08: {NOT_HELD}"],
            id="a balance of a sealed day",
        ),
        pytest.param(
            ("proof", "days", 0, "day_proof", 0), lambda _: -1,
            ["day 2026-04-08: the proof names a hash that is not there"], id="a place below 0",
        ),
        pytest.param(
            ("proof", "days", 1, "log_proof", 0), lambda _: len(whole()["proof"]["hashes"]),
            ["day 2026-04-09: the proof names a hash that is not there"], id="a place too high",
        ),
        pytest.param(
            ("proof", "days", 1, "log_proof"), lambda log_proof: log_proof[1:],
            ["day 2026-04-09: the proof has 2 hashes instead of 3"], id="a hash is missing",
        ),
        pytest.param(
            ("nodes", 0, "amount"), lambda _: "-6.0", damaged("amount is no amount of money"),
            id="money with less digits",
        ),
        pytest.param(
            ("opening_balance",), lambda _: "-0.000000000",
            damaged("opening_balance is no amount of money"), id="zero with a sign",
        ),
        pytest.param(
            ("closing_balance",), lambda _: "much",
            damaged("closing_balance is no amount of money"), id="no number",
        ),
        pytest.param(
            ("amount",), lambda _: "1E+999999999", damaged("amount is no amount of money"),
            id="a short text for a gigabyte of digits",
        ),
        pytest.param(
            ("proof", "checkpoint"), lambda _: 7, damaged("checkpoint is not of its type"),
            id="a checkpoint that is no text",
        ),
        pytest.param(
            ("amount",), lambda _: None, damaged("amount is no amount of money"), id="no money"
        ),
        pytest.param(
            ("quota", "remaining_before"), lambda _: "100",
            damaged("remaining_before is not of its type"), id="a text for a number",
        ),
        pytest.param(
            (*UNSEALED, "sealed"), lambda _: 0, damaged("sealed is not of its type"),
            id="a number for a truth value",
        ),
        pytest.param(
            ("days", 0, "charges"), lambda _: True, damaged("charges is not of its type"),
            id="a truth value for a number",
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_though_the_hash_was_made_again(
    place: tuple[Any, ...], change: Callable[[Any], Any], problems: list[str]
) -> None:
    """Each problem by itself, and no other."""
    check = check_statement(hashed(with_other(place, change)))
    assert list(check.problems) == problems


def test_what_is_wrong_with_several_days_is_said_of_each_in_their_order() -> None:
    """The first one hides no later one."""
    altered = whole()
    for number in (0, 1):
        altered["days"][number]["balance_after"] = "1.000000000"
    altered["days"][1]["sealed"] = False
    assert check_statement(hashed(altered)).problems == (
        f"day 2026-04-08: {NOT_HELD}",
        "day 2026-04-09: it is sealed either with a proof, or not at all",
    )
    altered["days"][1]["sealed"] = True
    altered["proof"]["days"][0]["log_proof"].pop()
    assert check_statement(hashed(altered)).problems == (
        "day 2026-04-08: the proof has 2 hashes instead of 3",
        f"day 2026-04-09: {NOT_HELD}",
    )


def test_a_hash_has_one_form() -> None:
    """Characters that readers of base64 may skip are damage."""
    altered = with_other(("proof", "hashes", 0), lambda text: f"{text[:5]}!{text[5:]}")
    (problem,) = check_statement(hashed(altered)).problems
    assert problem.startswith("the statement is damaged: ")


def test_sums_are_compared_in_each_day() -> None:
    """Each day and sum that does not add up is named."""
    altered = whole()
    for number in (0, 2):
        altered["days"][number]["charges"] += 1
    assert check_statement(hashed(altered)).problems == (
        "day 2026-04-08: charges is not the sum of its entries",
        "day 2026-04-10: charges is not the sum of its entries",
        f"day 2026-04-08: {NOT_HELD}",
    )


@pytest.mark.parametrize(
    ("place", "name"),
    [
        ((), "the statement"),
        (("quota",), "quota"),
        (("days", 0), "a day"),
        (("days", 0, "entries", 0), "an entry"),
        (("nodes", 0), "a node"),
        (("other_entries", 0), "an entry of others"),
        (("proof",), "the proof"),
        (("proof", "days", 0), "the proof of a day"),
    ],
)
def test_it_is_said_what_has_not_its_keys(place: tuple[Any, ...], name: str) -> None:
    """Also where it is no object at all."""
    statement: object = with_other(place, lambda _: "text") if place else []
    assert list(check_statement(statement).problems) == damaged(
        f"{name} has not the keys that it should have"
    )


def test_a_day_may_be_sealed_in_part() -> None:
    """What was booked after the leaf is a day of its own: sealed first, or it is no order."""
    late = {**content_of(9, 14), "sealed": False}
    days = [*whole()["days"][:2], late, whole()["days"][2]]
    made = whole() | {"days": days, "nodes": nodes_of(days), **totals_of(days)}
    made["closing_balance"] = "58.000000000"
    assert check_statement(hashed(made)).problems == ("days are not in their order",)
    made["days"] = [days[0], late, days[1], days[3]]
    made["nodes"] = nodes_of(made["days"])
    check = check_statement(hashed(made))
    assert check.problems == ()
    assert check.unsealed_days == ("2026-04-09", "2026-04-10")


def test_a_day_is_proven_by_its_own_leaf_alone() -> None:
    """Whether it is marked as sealed is no part of it."""
    day = whole()["days"][0]
    assert is_proven(day, PROOFS[0])
    assert is_proven({**day, "sealed": False}, PROOFS[0])
    assert not is_proven({**day, "balance_after": "1.000000000"}, PROOFS[0])
    assert not is_proven(day, PROOFS[1])
    assert not is_proven(None, PROOFS[0])


def test_a_proof_tells_each_hash_once() -> None:
    """In base64, referred to by its place."""
    one, two = b"1" * 32, b"2" * 32
    day = SealedDay(date(2026, 4, 8), 5, b"\x01\x02", b"root")
    made = proof_object("note", [DayProof(day, b"\xff\x00", 2, 3, [one, two], [two, one])])
    assert made == {
        "checkpoint": "note",
        "hashes": [
            "MTExMTExMTExMTExMTExMTExMTExMTExMTExMTExMTE=",
            "MjIyMjIyMjIyMjIyMjIyMjIyMjIyMjIyMjIyMjIyMjI=",
        ],
        "days": [
            {
                "day": "2026-04-08",
                "salt": "ff00",
                "position": 2,
                "accounts": 5,
                "salts_sha256": "0102",
                "leaf_number": 3,
                "day_proof": [0, 1],
                "log_proof": [1, 0],
            }
        ],
    }
