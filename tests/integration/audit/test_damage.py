"""Damage of every kind, done to a database that was really billed: the audit names it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from billing_cli.features.audit.findings import VIOLATIONS
from tests.integration.audit.damage import DAMAGES

if TYPE_CHECKING:
    from tests.integration.audit.full_story import FullStory

SEAL_KINDS = {"seal_missing", "seal_differs"}


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_found_and_named(billed: FullStory, name: str) -> None:
    """Each kind of damage shows as what it is, and as nothing else; facts also miss their seal."""
    statements, kinds = DAMAGES[name]
    billed.damage(statements)

    found = VIOLATIONS.keys() & billed.audit().counts.keys()
    assert found - (SEAL_KINDS - kinds) == kinds


def test_every_kind_of_violation_is_shown_to_be_found() -> None:
    """There is damage for each kind that an audit can name."""
    assert frozenset().union(*(one.kinds for one in DAMAGES.values())) == VIOLATIONS.keys()
