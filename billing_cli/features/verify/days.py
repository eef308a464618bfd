"""Checks the trees of sealed days: salts and nodes against what the day's leaf in the log covers.

The content of an account's leaf follows from charges, and these are covered by their seals; it is
computed only to name the account where something differs.
"""

from __future__ import annotations

from hashlib import sha256
from itertools import groupby
from typing import TYPE_CHECKING

from billing_cli.core.merkle import NodePlace, TreeBuilder
from billing_cli.core.seals import AccountDay, account_leaf, salt_line
from billing_cli.database.seals import read_booked, read_nodes, sealed_day_of, tree_of_day
from billing_cli.features.verify import queries as store
from billing_cli.features.verify.log import NODES, StoredNodes

if TYPE_CHECKING:
    from datetime import date, datetime

    from psycopg import Connection

    from billing_cli.core.seals import SealedDay
    from billing_cli.features.verify.result import FindingKind, VerifyReport

LEAVES = "billing.day_leaves"


def check_days(connection: Connection, since: datetime | None, report: VerifyReport) -> None:
    """Add to the report where sealed days are not what the log covers; `since` they were sealed."""
    with store.rows_of(connection, store.READ_DAYS) as rows:
        days = [sealed_day_of(row[2:]) for row in rows if since is None or row[1] >= since]
    for day in days:
        _check_day(connection, day, report)
    report.days = len(days)


def _check_day(connection: Connection, day: SealedDay, report: VerifyReport) -> None:
    salts = sha256()
    accounts = 0
    parameters = {"day": day.day}
    with store.rows_of(connection, store.READ_DAY_LEAVES, parameters) as rows:
        for _, account_uuid, salt in rows:
            salts.update(salt_line(account_uuid, salt))
            accounts += 1
    tree = TreeBuilder()
    with store.rows_of(connection, store.READ_TREE, {"tree": tree_of_day(day.day)}) as rows:
        nodes = StoredNodes(rows)
        while (leaf := nodes.take(NodePlace(0, tree.size))) is not None:
            nodes.compare(tree.append(leaf)[1:])
        nodes.report(report, f"day {day.day}")
    are_salts_right = accounts == day.accounts and salts.digest() == day.salts_sha256
    is_tree_right = tree.size == day.accounts and tree.root() == day.root
    if are_salts_right and is_tree_right:
        return
    if accounts != day.accounts:
        kind: FindingKind = "deleted" if accounts < day.accounts else "inserted"
        detail = f"day {day.day} has {accounts} accounts, the log has {day.accounts}"
        report.add(kind, LEAVES, detail)
    _name_accounts(connection, day.day, report, NODES if are_salts_right else LEAVES)


def _name_accounts(connection: Connection, day: date, report: VerifyReport, table: str) -> None:
    """Report the accounts whose leaf is not the one that their salt and charges give."""
    with store.rows_of(connection, store.READ_DAY_LEAVES, {"day": day}) as rows:
        leaves = {account_uuid: (position, salt) for position, account_uuid, salt in rows}
    places = [NodePlace(0, position) for position, _ in leaves.values()]
    nodes = read_nodes(connection, tree_of_day(day), places)
    named = 0
    booked = read_booked(connection, store.read_day_bounds(connection, day))
    for account_uuid, charges in groupby(booked, key=lambda charge: charge[0]):
        totals = AccountDay(account_uuid, day)
        for _, place, line in charges:
            totals.add(line, place)
        if account_uuid not in leaves:
            detail = f"day {day}: the account has charges and no leaf"
            report.add("deleted", LEAVES, detail, None, account_uuid)
            named += 1
            continue
        position, salt = leaves[account_uuid]
        if account_leaf(totals.content(), salt) != nodes.get(NodePlace(0, position)):
            detail = f"day {day}: salt, leaf or charges of the account differ"
            report.add("changed", table, detail, None, account_uuid)
            named += 1
    if not named:
        report.add("changed", table, f"day {day}: salts or their order differ")
