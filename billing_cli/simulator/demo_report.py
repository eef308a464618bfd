"""The closing tables of the demo: bytes flowed and bytes billed, and who agrees with whom."""

from __future__ import annotations

from collections import defaultdict
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from billing_cli.simulator.books import read_buckets, read_funds
from billing_cli.simulator.invariants import compare_with_oracle, violations
from billing_cli.simulator.ledger import read_charges
from billing_cli.simulator.oracle import Bytes, Oracle

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from psycopg import Connection

    from billing_cli.simulator.books import Books
    from billing_cli.simulator.demo_fleet import DemoFleet

NOTHING = Bytes()
MOST_PROBLEMS_SHOWN = 20


def report(
    connection: Connection[Any], demo_fleet: DemoFleet, before: Books
) -> tuple[list[str], bool]:
    """Return the closing lines, and whether all of it is right."""
    oracle = Oracle(demo_fleet.fleet)
    billed_accounts, billed_nodes = _billed(connection)
    problems = [
        *violations(connection, before),
        *compare_with_oracle(connection, oracle, demo_fleet.end),
    ]
    true_accounts = oracle.bytes_by_account(demo_fleet.end)
    true_nodes = oracle.bytes_by_node(demo_fleet.end)
    is_right = not problems and billed_accounts == true_accounts and billed_nodes == true_nodes
    lines = [
        *_account_table(connection, demo_fleet, before, true_accounts, billed_accounts),
        "",
        *_table(
            ("NODE", "FLOWED", "BILLED", "RATIO"),
            [_ratio_row(node, moved, billed_nodes) for node, moved in sorted(true_nodes.items())],
        ),
        "",
        *_agreement(connection, before, oracle, demo_fleet),
        *(f"broken: {problem}" for problem in problems[:MOST_PROBLEMS_SHOWN]),
    ]
    return lines, is_right


def _billed(connection: Connection[Any]) -> tuple[dict[str, Bytes], dict[str, Bytes]]:
    """Return the bytes of the buckets by account and by node."""
    accounts: dict[str, Bytes] = defaultdict(Bytes)
    nodes: dict[str, Bytes] = defaultdict(Bytes)
    for key, moved, _ in read_buckets(connection):
        directions = Bytes(*moved[:2])
        accounts[key.account_uuid] = accounts[key.account_uuid].plus(directions)
        nodes[key.stored_node_id] = nodes[key.stored_node_id].plus(directions)
    return dict(accounts), dict(nodes)


def _account_table(
    connection: Connection[Any],
    demo_fleet: DemoFleet,
    before: Books,
    true: Mapping[str, Bytes],
    billed: Mapping[str, Bytes],
) -> Iterator[str]:
    funds = read_funds(connection)
    included: dict[str, int] = defaultdict(int)
    for charge in read_charges(connection).values():
        included[charge.bucket.account_uuid] += charge.included_bytes
    table_rows = []
    for user in demo_fleet.fleet.users:
        opening = before.funds.get(user.uuid, before.default)
        now = funds.get(user.uuid, opening)
        account, *ratio = _ratio_row(user.uuid, true.get(user.uuid, NOTHING), billed)
        name = user.email.partition("@")[0]
        money = (f"{included[account]:,}", f"{opening.balance:.2f}", f"{now.balance:.9f}")
        table_rows.append((name, *ratio, *money))
    total_true, total_billed = (sum(map(sum, side.values())) for side in (true, billed))
    quota = f"{sum(included.values()):,}"
    table_rows.append(("total", *_ratio(total_true, total_billed), quota, "", ""))
    header = ("ACCOUNT", "FLOWED", "BILLED", "RATIO", "INCLUDED", "OPENING", "BALANCE")
    yield from _table(header, table_rows)


def _agreement(
    connection: Connection[Any], before: Books, oracle: Oracle, demo_fleet: DemoFleet
) -> Iterator[str]:
    """Say in sums what the invariants prove for each row."""
    buckets = sum(moved[2] for _, moved, _ in read_buckets(connection))
    charges = read_charges(connection).values()
    charged = sum(charge.included_bytes + charge.rated_bytes for charge in charges)
    amount = sum((charge.amount_delta for charge in charges), Decimal(0))
    change = sum(
        (
            now.balance - before.funds.get(account, before.default).balance
            for account, now in read_funds(connection).items()
        ),
        Decimal(0),
    )
    unbilled: dict[str, int] = defaultdict(int)
    for share in oracle.unbilled(demo_fleet.end):
        unbilled[share.reason] += sum(share.bytes)
    flowed = sum(oracle.flowed())
    yield f"bytes:  buckets {buckets:,} = charged or included {charged:,}"
    yield f"money:  ledger {amount:f} = change of balances {change:f}"
    yield f"flow:   {flowed:,} in all, of which no snapshot can report:"
    for reason, count in sorted(unbilled.items()):
        yield f"        {count:,} {WHY.get(reason, reason)}"


WHY = {
    "reset": "between the last poll and the restart of xray",
    "unseen": "after the last poll, for the next run to bill",
    "baseline": "before the first snapshot",
}


def _ratio_row(name: str, moved: Bytes, billed: Mapping[str, Bytes]) -> tuple[str, ...]:
    return (name, *_ratio(sum(moved), sum(billed.get(name, NOTHING))))


def _ratio(flowed: int, billed: int) -> tuple[str, str, str]:
    """Return both figures and their ratio, which reads 1.0000 only where they are equal."""
    if flowed == billed:
        ratio = "1.0000" if flowed else "-"
    else:
        ratio = f"{billed / flowed:.9f}" if flowed else "?"
    return f"{flowed:,}", f"{billed:,}", ratio


def _table(header: Sequence[str], table_rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield lines of columns: names to the left, figures to the right."""
    lines = [header, *table_rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    for line in lines:
        cells = [line[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)]
        yield "  ".join(cells).rstrip()
