"""The checks of an audit, in their order, and reading what they find row by row."""

from __future__ import annotations

from collections import defaultdict
from decimal import Decimal
from typing import TYPE_CHECKING, NamedTuple

from billing_cli.database import arrays
from billing_cli.features.audit import queries_amounts as amounts
from billing_cli.features.audit import queries_balances as balances
from billing_cli.features.audit import queries_chains as chains
from billing_cli.features.audit import queries_evidence as evidence
from billing_cli.features.audit import queries_facts as facts
from billing_cli.features.audit import queries_past as past
from billing_cli.features.audit import queries_positions as positions
from billing_cli.features.audit import queries_pruned as pruned
from billing_cli.features.audit import queries_seals as seals
from billing_cli.features.audit.balances import find_changed_funds
from billing_cli.features.audit.findings import Figures, Finding
from billing_cli.features.audit.repairs import find_wrong_repairs

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from psycopg import Connection

    from billing_cli.features.audit.findings import Value
    from billing_cli.features.audit.scope import Scope
    from billing_cli.features.audit.sums import Sums


class Check(NamedTuple):
    """A statement that returns what is wrong, and what it looks at in words.

    Without a statement it is the one about funds, which more than one statement answers. `range_of`
    names the range of `Sums` in which it is needed. An incremental audit uses `new_statement`,
    where there is one, and leaves out what `is_past`.
    """

    title: str
    statement: str | None = None
    range_of: str | None = None
    new_statement: str | None = None
    is_past: bool = False


CHECKS = (
    Check(
        "usage records lead from one to the next",
        chains.BROKEN_CHAINS,
        new_statement=chains.BROKEN_NEW_CHAINS,
    ),
    Check("successions hand over what others take over", chains.UNBALANCED_SUCCESSIONS),
    Check(
        "corrections start at what was on record",
        evidence.BROKEN_CORRECTIONS,
        new_statement=evidence.BROKEN_NEW_CORRECTIONS,
    ),
    Check(
        "released deltas are charged once",
        evidence.UNMATCHED_RELEASES,
        new_statement=evidence.UNMATCHED_NEW_RELEASES,
    ),
    Check("buckets, records and charges have the same bytes", facts.DIFFERENT_BYTES, "bytes_range"),
    Check("ledger rows say what their charges say", facts.DIFFERENT_LEDGER, "ledger_range"),
    Check("amounts are bytes x price x multiplier", amounts.WRONG_AMOUNTS, "amounts_range"),
    Check(
        "adjustments are about charges of their bucket",
        amounts.UNFOUNDED_ADJUSTMENTS,
        "amounts_range",
    ),
    Check("balances and quotas follow from charges and rows"),
    Check("accounts are there", balances.ACCOUNTS_WITHOUT_STATE, "accounts_range"),
    Check(
        "each fact is covered by one seal",
        seals.UNSEALED_FACTS,
        "seals_range",
        new_statement=positions.UNSEALED_NEW_FACTS,
    ),
    Check("months that were pruned are as they were", pruned.CHANGED_SINCE_PRUNED, is_past=True),
    Check("earlier versions recognised successions", past.UNRECOGNISED_SUCCESSIONS, is_past=True),
    Check(
        "earlier versions recognised changes of clocks", past.IGNORED_CLOCK_CHANGES, is_past=True
    ),
    Check("watermarks agree", evidence.DIFFERENT_WATERMARKS),
    Check("shared checkpoints are sums of streams", evidence.DIFFERENT_SHARED_CHECKPOINTS),
)


class Totals(NamedTuple):
    """How many rows were read, by table, and the sums over them."""

    rows: Mapping[str, int]
    figures: Figures


def find(
    connection: Connection, check: Check, scope: Scope, found: Sums | None, default_quota_bytes: int
) -> Iterator[Finding]:
    """Yield what a check finds in the scope, a row at a time.

    The rows are streamed: neither here nor in the driver are they ever all in memory. `found` are
    the sums of all accounts, None where one account is audited.
    """
    if check.statement is None:
        yield from find_changed_funds(connection, scope, found, default_quota_bytes)
        yield from find_wrong_repairs(connection, scope.account_uuid)
        return
    statement, given = check.statement, scope.parameters()
    if scope.is_incremental:
        if check.is_past:
            return
        statement = check.new_statement or statement
    if found is not None and check.range_of is not None:
        minutes = getattr(found, check.range_of)
        if minutes is None:
            return
        given["since"], given["until"] = minutes
    with connection.cursor() as cursor:
        rows = cursor.stream(statement.encode(), given)
        for row in rows:
            yield _finding([column.name for column in cursor.description or ()], row)


def read_totals(connection: Connection, scope: Scope) -> Totals:
    """Return the sums over one account."""
    row = connection.execute(balances.READ_TOTALS.encode(), scope.parameters()).fetchone()
    if row is None:
        raise AssertionError("a SELECT of sums has a row")
    streams, records, recorded, buckets, shown, charges, *charged, ledger, accounts = row
    included, rated, amount = charged
    return Totals(
        {
            "accounts": accounts,
            "streams": streams,
            "usage_records": records,
            "buckets": buckets,
            "charges": charges,
            "ledger_rows": ledger,
        },
        Figures(int(recorded), int(shown), int(included), int(rated), amount),
    )


def read_accounts(
    connection: Connection, account_uuid: str | None, known: Collection[str], limit: int
) -> list[str]:
    """Return at most `limit` accounts in addition to the known ones."""
    rows = connection.execute(
        balances.READ_ACCOUNTS,
        {"account": account_uuid, "known": arrays.plain(known), "limit": limit},
    )
    return [account for (account,) in rows]


def read_totals_of_all(connection: Connection, found: Sums) -> Totals:
    """Return the sums over all accounts, which were read already."""
    row = connection.execute(balances.COUNT_ALL).fetchone()
    accounts, streams = row or (0, 0)
    return Totals({"accounts": accounts, "streams": streams, **found.rows}, found.figures)


def read_account_figures(
    connection: Connection, scope: Scope, account_uuids: Sequence[str]
) -> list[tuple[str, Figures, Decimal | None, Decimal | None]]:
    """Return each account's figures, its balance now and at first, in the order given."""
    rows = connection.execute(
        balances.READ_ACCOUNT_FIGURES.encode(),
        scope.parameters(account_uuids=arrays.plain(account_uuids)),
    )
    return [
        (account, Figures(int(recorded), int(shown), int(included), int(rated), amount), *balances)
        for account, recorded, shown, included, rated, amount, *balances in rows
    ]


# What is summed in the database comes as a decimal; but for these it counts bytes or rows.
MONEY = frozenset(
    {
        "amount_delta",
        "balance_after",
        "current_balance",
        "difference",
        "price_per_byte",
        "multiplier",
    }
)


def _finding(names: Sequence[str], row: Sequence[Value | None]) -> Finding:
    """Sort a row's columns by what they are, without what has no part in it."""
    parts: defaultdict[str, dict[str, Value]] = defaultdict(dict)
    for name, value in zip(names, row, strict=True):
        part, _, column = name.partition(".")
        if isinstance(value, Decimal) and column not in MONEY:
            parts[part][column] = int(value)
        elif value is not None:
            parts[part][column] = value
    kind, account = parts["kind"].get(""), parts["account_uuid"].get("")
    expected, found = parts["expected"], parts["found"]
    same = {column for column in expected if expected[column] == found.get(column)}
    return Finding(
        str(kind),
        None if account is None else str(account),
        parts["key"],
        {column: value for column, value in expected.items() if column not in same},
        {column: value for column, value in found.items() if column not in same},
    )
