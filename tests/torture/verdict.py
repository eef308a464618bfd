"""What is wrong with a world's books after a fault, counted in bytes, nanos and contradictions."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING

from billing_cli.simulator.books import NANO, read_buckets, read_funds
from billing_cli.simulator.invariants import (
    compare_with_oracle,
    moved_back,
    read_watermarks,
    violations,
)
from billing_cli.simulator.oracle import Oracle
from tests.torture.tally import Tally

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.integration.jobs.world import World

SHOWN = 5


@dataclass(slots=True)
class Verdict:
    """What was found wrong so far. `problems` are lines, of which each is a contradiction.

    `failure` is how a run said that it had failed, which is no wrong in itself.
    """

    lost_bytes: int = 0
    doubled_bytes: int = 0
    wrong_nanos: int = 0
    problems: list[str] = field(default_factory=list)
    failure: str = ""

    @property
    def is_clean(self) -> bool:
        """Whether nothing at all is wrong."""
        return not (self.lost_bytes or self.doubled_bytes or self.wrong_nanos or self.problems)

    def tally(self, fault: str, detail: str = "") -> Tally:
        """Return it as what one round of an attack came to."""
        return Tally(
            fault,
            1,
            self.lost_bytes,
            self.doubled_bytes,
            len(self.problems),
            self.wrong_nanos,
            detail,
        )

    def tell(self, attack: str, seed: int, what: str) -> None:
        """Say on stderr what is wrong, and how to see it once more."""
        bytes_wrong = f"{self.lost_bytes} bytes lost, {self.doubled_bytes} doubled"
        lines = [
            f"{attack}: {what}: {bytes_wrong}, balances off by {self.wrong_nanos} nanos",
            *(f"  {problem}" for problem in self.problems[:SHOWN]),
            *([f"  and {len(self.problems) - SHOWN} more"] * (len(self.problems) > SHOWN)),
            f"  again: python -m tests.torture --only {attack} --seed {seed} --rounds 1",
        ]
        sys.stderr.write("\n".join([*lines, ""]))


def look_between(world: World, verdict: Verdict, *, blurred: bool = False) -> None:
    """Note which invariants do not hold (I1 to I4), and what is untrue up to the watermarks.

    Where it is `blurred`, some bytes are known to be in another minute than they flowed in, or to
    be found by a later reconcile, so that the truth can't be told yet.
    """
    verdict.problems += violations(world.connection, world.opening(), world.top_ups)
    verdict.problems += moved_back(world.connection, world.watermarks)
    world.watermarks = read_watermarks(world.connection)
    if not blurred:
        oracle = Oracle(world.fleet)
        verdict.problems += compare_with_oracle(world.connection, oracle, pending_allowed=True)


def look_finally(world: World, verdict: Verdict, held: Mapping[str, int] | None = None) -> None:
    """Hold the books against all that ever flowed, once everything is done.

    `held` are the bytes by account that are too many for any line. Money is worked out from the
    truth alone: what an account moved beyond its quota, at one price for everything.
    """
    verdict.problems += violations(world.connection, world.opening(), world.top_ups)
    verdict.problems += moved_back(world.connection, world.watermarks)
    verdict.problems += compare_with_oracle(
        world.connection, Oracle(world.fleet), world.at(100_000)
    )
    true = {
        account: sum(moved) for account, moved in Oracle(world.fleet).bytes_by_account().items()
    }
    for account, held_bytes in (held or {}).items():
        true[account] -= held_bytes
    billed = _billed_bytes(world)
    funds = read_funds(world.connection)
    for account in true.keys() | billed.keys():
        missing = true.get(account, 0) - billed.get(account, 0)
        verdict.lost_bytes += max(0, missing)
        verdict.doubled_bytes += max(0, -missing)
        if account in funds:
            wrong = funds[account].balance - _true_balance(world, account, true.get(account, 0))
            verdict.wrong_nanos += int(abs(wrong) / NANO)


def _billed_bytes(world: World) -> dict[str, int]:
    billed: dict[str, int] = {}
    for bucket, moved, _ in read_buckets(world.connection):
        billed[bucket.account_uuid] = billed.get(bucket.account_uuid, 0) + moved[2]
    return billed


def _true_balance(world: World, account: str, moved_bytes: int) -> Decimal:
    """Return the balance of an account that was charged once for every byte beyond its quota."""
    top_up = world.top_ups[account].balance if account in world.top_ups else Decimal(0)
    charged = world.price * max(0, moved_bytes - world.quota)
    return world.balance + top_up - charged
