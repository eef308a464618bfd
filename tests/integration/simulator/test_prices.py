"""The price checks name each charge that does not cost what its bytes and its price make."""

from __future__ import annotations

from typing import TYPE_CHECKING, LiteralString

import pytest

from tests.integration.simulator.planted import Planted, planted_books

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def planted(database_url: str) -> Iterator[Planted]:
    """Return two minutes of one account, rightly billed."""
    with planted_books(database_url) as books:
        yield books


DAMAGE: list[tuple[LiteralString, str]] = [
    ("UPDATE billing.charges SET price_per_byte = 0.002", "3 bytes at its price make -0.006"),
    ("UPDATE billing.charges SET multiplier = 1.5", "5 bytes at its price make -0.0075"),
    (
        "UPDATE billing.charges SET adjusts = gen_random_uuid() WHERE rated_bytes = 3",
        "which is no charge before it",
    ),
    (
        "UPDATE billing.charges SET ledger_id = gen_random_uuid() WHERE rated_bytes = 3",
        "has an id that does not count its entries",
    ),
    (
        "UPDATE billing.charges SET included_bytes = -1 WHERE rated_bytes = 3",
        "gave back more than it charged: -1 and 3 bytes left",
    ),
]


@pytest.mark.parametrize(("statement", "said"), DAMAGE)
def test_damage_to_a_price_is_named(planted: Planted, statement: LiteralString, said: str) -> None:
    """One line says which bucket, and what is wrong with it."""
    planted.damage(statement)
    assert any(said in line for line in planted.found())
