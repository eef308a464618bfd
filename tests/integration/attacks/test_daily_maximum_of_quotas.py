"""A daily maximum counts what minutes really cost: after renewals and reversals."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

import pytest

from billing_cli.features.migrate.job import migrate
from billing_cli.features.reverse.job import Order, reverse
from billing_cli.simulator import read_service
from tests.integration.attacks.hostile import HOUR, MINUTE, START, Attack, only

if TYPE_CHECKING:
    from tests.support.postgres import Databases

GB = 10**9
# A GB costs 1.
NINE_TENTHS = 9 * GB // 10
MAXIMUM = Decimal(1)
MONTH = 30 * 24 * HOUR


@pytest.fixture
def with_periods(attack: Attack, databases: Databases, database_url: str) -> Attack:
    """Return a world whose accounts have quota periods."""
    read_service.add_period_columns(attack.connection)
    migrate(database_url, grant_to=databases.job_role)
    return attack


def publish(attack: Attack, source_id: str, user: str, totals: dict[int, int]) -> None:
    """Publish a user's total at each minute."""
    node = attack.nodes.get(source_id) or attack.node(source_id)
    for minute, total in totals.items():
        node.snapshots[START + minute * MINUTE] = [(user, "tcp", total)]


@pytest.mark.parametrize(
    ("former", "renewed", "held"),
    [(NINE_TENTHS, 100 * GB, 2), (3 * NINE_TENTHS, 0, 0)],
)
def test_minutes_before_a_renewal_are_judged_on_the_former_quota(
    with_periods: Attack, former: int, renewed: int, held: int
) -> None:
    """Also by the run that sees the renewal first, with more quota or less than before."""
    attack = with_periods
    attack.tariff = {"max_daily_charge": MAXIMUM}
    (user,) = attack.users()
    publish(attack, "jp-1", user, {0: 0, 1: NINE_TENTHS})
    attack.run(START + MINUTE)
    attack.connection.execute(
        "UPDATE account_quota_states SET remaining_included_quota = %s", [former]
    )
    publish(attack, "jp-1", user, {2: 2 * NINE_TENTHS, 3: 3 * NINE_TENTHS})
    attack.run(START + 2 * MINUTE)
    publish(attack, "jp-1", user, {4: 4 * NINE_TENTHS, 5: 4 * NINE_TENTHS})
    read_service.renew_quota(attack.connection, user, renewed, START + 5 * MINUTE, START + MONTH)
    assert only(attack.run(START + 5 * MINUTE)).held_deltas == held
    assert attack.charged()[1] == Decimal("0.9")


def test_what_a_renewal_gives_back_makes_room(with_periods: Attack) -> None:
    """Also where the run that sees it has no usage of the account."""
    attack = with_periods
    attack.tariff = {"max_daily_charge": MAXIMUM}
    (user,) = attack.users()
    publish(attack, "jp-1", user, {0: 0, 1: NINE_TENTHS})
    attack.run(START + MINUTE)
    read_service.renew_quota(attack.connection, user, NINE_TENTHS, START + MINUTE, START + MONTH)
    publish(attack, "jp-1", user, {2: NINE_TENTHS})
    attack.run(START + 2 * MINUTE)
    assert attack.charged()[1] == 0
    publish(attack, "jp-1", user, {3: 2 * NINE_TENTHS})
    result = attack.run(START + 3 * MINUTE)
    assert (result.status, only(result).held_deltas) == ("ok", 0)
    assert attack.charged()[1] == Decimal("0.9")


def test_a_renewed_quota_is_used_by_minutes_of_before_first(with_periods: Attack) -> None:
    """What is left of it then is what new minutes on another node are judged by."""
    attack = with_periods
    attack.tariff = {"max_daily_charge_per_source": MAXIMUM}
    user, other = attack.users(2)
    publish(attack, "a-1", user, {0: 0, 1: NINE_TENTHS, 2: NINE_TENTHS})
    node = attack.node("b-1")
    for minute, total, others in ((0, 0, 0), (1, 0, NINE_TENTHS)):
        node.snapshots[START + minute * MINUTE] = [(user, "tcp", total), (other, "tcp", others)]
    attack.run(START + MINUTE)
    read_service.renew_quota(attack.connection, user, NINE_TENTHS, START + MINUTE, START + MONTH)
    node.snapshots[START + 2 * MINUTE] = [(user, "tcp", NINE_TENTHS), (other, "tcp", NINE_TENTHS)]
    result = attack.run(START + 2 * MINUTE)
    assert sum(source.held_deltas for source in result.sources) == 1
    assert attack.charged()[1] == Decimal("0.9")


def test_quota_that_a_reversal_gives_back_makes_room_on_other_nodes(attack: Attack) -> None:
    """A source's own maximum counts what moved into the quota on its node, too."""
    (user,) = attack.users()
    for source_id in ("a-1", "b-1"):
        publish(attack, source_id, user, {0: 0})
        attack.nodes[source_id].limits = {"max_daily_charge": MAXIMUM}
    publish(attack, "a-1", user, {1: 1000})
    attack.run(START + MINUTE)
    attack.connection.execute(
        "UPDATE account_quota_states SET remaining_included_quota = %s", [NINE_TENTHS]
    )
    publish(attack, "a-1", user, {2: 1000 + NINE_TENTHS})
    publish(attack, "b-1", user, {3: NINE_TENTHS})
    attack.run(START + 3 * MINUTE)
    reverse(
        attack.context(START + 6 * MINUTE), Order("a-1", START + 2 * MINUTE, None, None, "test")
    )
    publish(attack, "b-1", user, {5: 2 * NINE_TENTHS})
    result = attack.run(START + 5 * MINUTE)
    assert sum(source.held_deltas for source in result.sources) == 0
    assert attack.charged()[1] == Decimal("0.900001")
