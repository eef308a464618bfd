"""Checks the trees of sealed days: salts, nodes and charges against what the log covers.

The leaves of the accounts are computed from the charges, as far as these are kept. Where charges
are not what was sealed, that is found by itself, and the leaves say nothing more.
"""

from __future__ import annotations

from hashlib import sha256
from itertools import groupby
from typing import TYPE_CHECKING, Any

from billing_cli.core.merkle import NodePlace, TreeBuilder
from billing_cli.core.seals import AccountDay, account_leaf, salt_line
from billing_cli.database.seals import (
    CHARGES,
    read_booked,
    read_nodes,
    sealed_day_of,
    tree_of_day,
)
from billing_cli.features.verify import queries as store
from billing_cli.features.verify.log import NODES, StoredNodes

if TYPE_CHECKING:
    from datetime import date, datetime

    from psycopg import Connection

    from billing_cli.core.seals import Seal, SealedDay
    from billing_cli.features.verify.result import FindingKind, VerifyReport

LEAVES = "billing.day_leaves"


def check_days(
    connection: Connection, since: datetime | None, prune: Seal | None, report: VerifyReport
) -> None:
    """Add to the report where sealed days are not what the log covers; `since` they were sealed.

    The facts were compared with their seals before. Charges before `prune` are gone.
    """
    with store.rows_of(connection, store.READ_DAYS) as rows:
        days = [sealed_day_of(row[2:]) for row in rows if since is None or row[1] >= since]
    bounds = store.read_day_bounds(connection)
    are_charges_right = all(finding.table != CHARGES.name for finding in report.findings)
    for day in days:
        booked = bounds.get(day.day)
        are_kept = not booked or prune is None or booked["first_bucket"] >= prune.first_bucket
        _check_day(connection, day, booked, report, are_compared=are_charges_right and are_kept)
    report.days = len(days)


def _check_day(
    connection: Connection,
    day: SealedDay,
    booked: dict[str, Any] | None,
    report: VerifyReport,
    *,
    are_compared: bool,
) -> None:
    """Check a day; `booked` is where its charges are, None where no seal of the day has any."""
    salts = sha256()
    accounts = 0
    are_in_order, last = True, ""
    parameters = {"day": day.day}
    with store.rows_of(connection, store.READ_DAY_LEAVES, parameters) as rows:
        for position, account_uuid, salt in rows:
            are_in_order &= position == accounts and account_uuid > last
            salts.update(salt_line(account_uuid, salt))
            accounts, last = accounts + 1, account_uuid
    tree = TreeBuilder()
    with store.rows_of(connection, store.READ_TREE, {"tree": tree_of_day(day.day)}) as rows:
        nodes = StoredNodes(rows)
        while (leaf := nodes.take(NodePlace(0, tree.size))) is not None:
            nodes.compare(tree.append(leaf)[1:])
        nodes.report(report, f"day {day.day}")
    are_salts_right = accounts == day.accounts and salts.digest() == day.salts_sha256
    is_tree_right = tree.size == day.accounts and tree.root() == day.root
    if accounts != day.accounts:
        kind: FindingKind = "deleted" if accounts < day.accounts else "inserted"
        detail = f"day {day.day} has {accounts} accounts, the log has {day.accounts}"
        report.add(kind, LEAVES, detail)
    named = 0
    if are_compared:
        table = NODES if are_salts_right else LEAVES
        named = _name_accounts(connection, day.day, booked, report, table)
    if not named and not (are_salts_right and is_tree_right and are_in_order):
        report.add("changed", LEAVES, f"day {day.day}: leaves, salts or their order differ")


def _name_accounts(
    connection: Connection,
    day: date,
    booked: dict[str, Any] | None,
    report: VerifyReport,
    table: str,
) -> int:
    """Report accounts whose leaf is not the one that salt and charges give; count them."""
    with store.rows_of(connection, store.READ_DAY_LEAVES, {"day": day}) as rows:
        leaves = {account_uuid: (position, salt) for position, account_uuid, salt in rows}
    places = [NodePlace(0, position) for position, _ in leaves.values()]
    nodes = read_nodes(connection, tree_of_day(day), places)
    named = 0

    def name(kind: FindingKind, where: str, account_uuid: str, what: str) -> None:
        nonlocal named
        named += 1
        report.add(kind, where, f"day {day}: {what}", None, account_uuid)

    charged = read_booked(connection, booked) if booked else ()
    for account_uuid, charges in groupby(charged, key=lambda charge: charge[0]):
        totals = AccountDay(account_uuid, day)
        for _, place, line in charges:
            totals.add(line, place)
        if account_uuid not in leaves:
            name("deleted", LEAVES, account_uuid, "the account has charges and no leaf")
            continue
        position, salt = leaves.pop(account_uuid)
        if account_leaf(totals.content(), salt) != nodes.get(NodePlace(0, position)):
            name("changed", table, account_uuid, "salt, leaf or charges of the account differ")
    for account_uuid in leaves:
        name("inserted", LEAVES, account_uuid, "the account has a leaf and no charges")
    return named
