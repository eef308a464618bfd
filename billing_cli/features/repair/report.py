"""What a repair of balances did, as values and as text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from billing_cli.cli.tables import Column, Table
from billing_cli.cli.units import amounts_in, plural, with_currency
from billing_cli.core.balances import stored
from billing_cli.core.funds import Funds, repair_id_of
from billing_cli.core.objects import attributes, plain
from billing_cli.core.result import RunResult

if TYPE_CHECKING:
    from collections.abc import Mapping

    from billing_cli.cli.tables import Cell, Part
    from billing_cli.core.funds import Loss, LostCharge

MAX_REPAIRS_SHOWN = 50

COLUMNS = (
    Column("account"),
    Column("charges", "count"),
    Column("balance", "money"),
    Column("repaired_balance", "money"),
    Column("quota", "bytes", is_extra=True),
    Column("repaired_quota", "bytes", is_extra=True),
)


@dataclass(frozen=True, slots=True)
class Repair:
    """A stale write that is repaired: the charges that it undid, and the funds around it.

    `after_id` is the last entry of ours before the stale write; it names the loss for good.
    """

    account_uuid: str
    after_id: str
    charges: tuple[LostCharge, ...]
    before: Funds
    after: Funds

    @property
    def repair_id(self) -> str:
        """The repair's id: the same for the same loss, whoever repairs it and when."""
        return repair_id_of(self.account_uuid, self.after_id)


def repair_of(account_uuid: str, loss: Loss, funds: Funds) -> Repair:
    """Return what puts a loss right in an account that has these funds.

    The balance changes by what the stale write added. The quota only where it was restored as
    well, is still of that period, and never below 0: bytes that were used since are not taken
    back.
    """
    if loss.change.after_id is None:
        raise AssertionError("a loss follows an entry of ours")
    balance = stored(funds.balance - loss.amount)
    quota = funds.quota
    if loss.is_last_quota and loss.quota > 0:
        quota = max(funds.quota - loss.quota, min(funds.quota, 0))
    elif loss.is_last_quota:
        quota = funds.quota - loss.quota
    return Repair(account_uuid, loss.change.after_id, loss.charges, funds, Funds(balance, quota))


@dataclass(frozen=True, slots=True)
class RepairResult(RunResult):
    """A run of `repair balances`. `corrections` counts the repairs.

    `amount` is what all balances together were reduced by. `skipped` counts accounts that other
    sessions held locked.
    """

    repairs: tuple[Repair, ...] = ()
    skipped: int = 0

    @property
    def details(self) -> Mapping[str, Any]:
        """The repairs, in the order of accounts."""
        return {"repairs": [_object(repair) for repair in self.repairs], "skipped": self.skipped}


def repair_parts(result: RepairResult) -> list[Part]:
    """Return a summary line, the repaired accounts, and the notes."""
    would = " (dry run: nothing is stored)" if result.dry_run else ""
    head = (
        f"{result.job}: {result.status}{would} - {plural(result.corrections, 'repair')}, "
        f"balances reduced by {with_currency(result.amount, result.currency)} in total"
    )
    parts: list[Part] = [head]
    shown = result.repairs[:MAX_REPAIRS_SHOWN]
    if shown:
        parts += [
            "",
            Table(COLUMNS, [_row(repair) for repair in shown]),
            *amounts_in(result.currency),
        ]
    if len(result.repairs) > len(shown):
        parts.append(f"... and {len(result.repairs) - len(shown)} more; --json lists them all")
    parts += [f"note: {note}" for note in result.notes]
    return parts


def _row(repair: Repair) -> tuple[Cell, ...]:
    return (
        repair.account_uuid,
        len(repair.charges),
        repair.before.balance,
        repair.after.balance,
        repair.before.quota,
        repair.after.quota,
    )


def _object(repair: Repair) -> dict[str, Any]:
    return {
        **attributes(repair, "repair_id account_uuid"),
        "charges": [
            attributes(charge, "ledger_id bucket_start amount_delta included_bytes")
            for charge in repair.charges
        ],
        "amount": plain(repair.before.balance - repair.after.balance),
        "balance_before": plain(repair.before.balance),
        "balance_after": plain(repair.after.balance),
        "quota_before": repair.before.quota,
        "quota_after": repair.after.quota,
    }
