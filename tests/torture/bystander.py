"""accounts.svc.plus at work on the rows of a job that is killed, or whose server crashes."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING

import psycopg

from billing_cli.features.audit.job import audit
from billing_cli.features.repair.job import repair_balances
from billing_cli.simulator import read_service
from billing_cli.simulator.books import Funds, read_funds
from tests.integration.database.stage import eventually
from tests.torture.neighbour import kill_session
from tests.torture.trial import COUNT_RUNNING, count

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.torture.arena import Place
    from tests.torture.scenes import LimitedWorld
    from tests.torture.verdict import Verdict

AMOUNT = Decimal("0.003")


@contextmanager
def neighbour_around(
    world: LimitedWorld, place: Place, number: int, verdict: Verdict
) -> Iterator[None]:
    """Write back, after the block, a whole row that was read before it; an operator repairs that.

    `audit` must name the charges that are lost, and no others. Then a session is killed between
    the two statements of a top-up: the balance is changed, and no ledger row says so.
    """
    with psycopg.connect(place.database_url) as connection:
        accounts = sorted(read_funds(connection))
        account = accounts[number % len(accounts)]
        row = read_service.read_row(connection, account)
    yield
    with (
        psycopg.connect(place.database_url, autocommit=True) as admin,
        psycopg.connect(place.database_url, autocommit=True) as session,
    ):
        eventually(lambda: not count(place, COUNT_RUNNING))
        before = read_funds(admin)[account]
        row.write_back(session)
        is_lost = read_funds(admin)[account] != before
        context = world.context(datetime.now(UTC) if world.is_live else world.at(13))
        named = {
            finding.account_uuid
            for finding in audit(context).findings
            if finding.kind == "charge_lost"
        }
        if named != ({account} if is_lost else set()):
            verdict.problems.append(f"a stale write of {account}, audit names {named}")
        repair_balances(context, reason="torture")
        repaired = read_funds(admin)[account]
        if repaired != before:
            verdict.problems.append(f"repair makes {repaired} of {account}, it was {before}")
        read_service.change_balance(session, account, AMOUNT)
        kill_session(admin, session)
        with suppress(psycopg.OperationalError):
            read_service.record_entry(session, account, "topup", AMOUNT, datetime.now(UTC))
        world.top_ups[account] = Funds(AMOUNT)
