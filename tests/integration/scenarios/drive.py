"""How the core is driven through a scenario: the one place that knows how it is called."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from billing_cli.core.model import DeltaPolicy
from billing_cli.simulator.process import Bytes
from tests.unit.core.stories import Ledger

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from billing_cli.simulator.scenarios.playing import Played

POLICY = DeltaPolicy()


@dataclass(frozen=True, slots=True)
class Billed:
    """What has been charged to each account after some runs; unresolved users by their uuid."""

    charged: dict[str, Bytes]

    def of(self, account: str) -> Bytes:
        """Return what has been charged to the account."""
        return self.charged.get(account, Bytes())


def bill(played: Played, moments: Sequence[datetime]) -> Billed:
    """Return what is charged when runs take place at these moments."""
    *_, billed = bill_step_by_step(played, moments)
    return billed


def bill_step_by_step(played: Played, moments: Sequence[datetime]) -> Iterator[Billed]:
    """Yield what has been charged after each run, which reads what is on offer then."""
    accounts = played.accounts()
    books = Ledger(POLICY, accounts)
    for moment in moments:
        at = books.node.watermark
        answer = played.answer(moment)
        books.run(*(one for one in answer if at is None or one.collected_at >= at))
        charged: defaultdict[str, Bytes] = defaultdict(Bytes)
        for record in books.records:
            account = accounts.get(record.name.sample_uuid, record.name.sample_uuid)
            moved = Bytes(record.uplink_bytes, record.downlink_bytes)
            charged[account] = charged[account].plus(moved)
        yield Billed(dict(charged))
