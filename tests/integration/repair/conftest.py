"""Fixtures of repairs: an account that is charged minute by minute."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from billing_cli.features.audit.job import audit
from billing_cli.features.repair.job import repair_balances
from tests.support.story import Story, open_story

if TYPE_CHECKING:
    from collections.abc import Iterator

    from billing_cli.features.audit.findings import AuditReport
    from billing_cli.features.repair.report import RepairResult
    from billing_cli.simulator.books import Funds

REASON = "the read service wrote a stale row"


class Customer:
    """One account of a story, of which each minute is collected by itself."""

    def __init__(self, story: Story) -> None:
        self.story = story
        self.connection = story.connection
        self.user = story.add_user()
        self.stream = story.add_node("jp-1").add_stream(self.user.uuid, "xhttp")
        story.connection.execute(
            "INSERT INTO public.account_quota_states (account_uuid, remaining_included_quota,"
            " current_balance, arrears, effective_at) VALUES (%s, %s, 5, false, now())",
            (self.uuid, story.quota),
        )
        story.minute()
        story.collect()

    @property
    def uuid(self) -> str:
        """The account's uuid."""
        return self.user.uuid

    @property
    def funds(self) -> Funds:
        """What the account has now."""
        return self.story.funds(self.user)

    def use(self, kilobytes: int) -> None:
        """Let so many thousand bytes flow in the next minute, and charge 1.000 for each."""
        self.story.minute((self.stream, 0, 1000 * kilobytes))
        self.story.collect()

    def audit(self, **options: Any) -> AuditReport:
        """Audit all accounts, or the one that is named."""
        return audit(self.story.context(), **options)

    def repair(self, **options: Any) -> RepairResult:
        """Repair balances."""
        return repair_balances(self.story.context(), REASON, **options)


@pytest.fixture
def story(database_url: str, job_url: str) -> Iterator[Story]:
    """Return a story without nodes or users yet, in which other services write as well."""
    with open_story(database_url, job_url) as begun:
        begun.line_rate = 0
        yield begun


@pytest.fixture
def customer(story: Story) -> Customer:
    """Return an account without a quota and with a balance of 5."""
    return Customer(story)
