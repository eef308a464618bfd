"""Twenty minutes of a fleet, really billed, in which all happens that evidence can tell of."""

from __future__ import annotations

from contextlib import contextmanager
from copy import deepcopy
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import psycopg

from billing_cli.features.audit.job import audit
from billing_cli.features.held.job import release_held
from billing_cli.simulator.accounts import save_users
from billing_cli.simulator.server import serve
from tests.integration.reconcile.conftest import START, World
from tests.support.guards import without_guards

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from billing_cli.features.audit.findings import AuditReport
    from tests.support.postgres import Databases

Story = TypeVar("Story", bound="FullStory")

JUMP_BYTES = 10**12
RELEASE_REASON = "the line was upgraded"


def kinds(report: AuditReport) -> dict[str, int]:
    """Return how many findings there are of each kind."""
    return dict(report.counts)


@contextmanager
def copied(told: Story, databases: Databases) -> Iterator[Story]:
    """Go on from a story that was played once for many tests, with a copy of its database."""
    with databases.copy_of(told.database_url) as url:
        told.running = None
        story = deepcopy(told)
        story.database_url, story.job_url = url, databases.job_url(url)
        with serve(story.fleet) as story.running:
            yield story


class FullStory(World):
    """A restart, a stranger who registers, a jump that is held and released, a reconcile.

    `streams` and `users` are the known ones; the stranger's come last.
    """

    def __init__(self, database_url: str, job_url: str, start: datetime = START) -> None:
        super().__init__(database_url, job_url, start)
        self.stranger = self.fleet.new_uuid()
        self.streams.append(self.node.add_stream(self.stranger, "xhttp"))

    @property
    def end(self) -> datetime:
        """When the story has been told."""
        return self.minutes(20)

    def play(self) -> None:
        """Let the traffic flow, then bill it step by step."""
        node = self.node
        # History that comes late tells nothing of the stranger: one account without corrections.
        node.hide_stream(self.streams[-1], self.minutes(6), self.minutes(9))
        node.run(self.minutes(12), poll_seconds=60)
        node.restart_xray(self.minutes(12) + timedelta(seconds=20))
        node.run(self.minutes(14), poll_seconds=60)
        node.flow(self.streams[0], 0, JUMP_BYTES)
        node.run(self.end, poll_seconds=60)
        node.withhold(self.minutes(6), self.minutes(9), self.minutes(18))

        self.catch_up(self.minutes(10.7))
        self.register_stranger()
        self.catch_up(self.minutes(16.7))
        self.reconcile(self.minutes(18.7))
        self.release()
        self.catch_up(self.minutes(19.7))

    def register_stranger(self) -> None:
        """Make the unknown uuid a user."""
        self.users.append(self.fleet.add_user(self.stranger))
        with psycopg.connect(self.database_url) as connection:
            save_users(connection, self.users)

    def release(self) -> None:
        """Charge what is held."""
        with psycopg.connect(self.database_url) as connection:
            rows = connection.execute("SELECT held_id FROM billing.held_deltas").fetchall()
        self.job(
            release_held,
            self.minutes(18.8),
            held_ids=[held_id for (held_id,) in rows],
            reason=RELEASE_REASON,
        )

    def audit(self, **options: Any) -> AuditReport:
        """Audit the database."""
        job: Any = self.job
        report: AuditReport = job(audit, self.end, **options)
        return report

    def execute(self, statements: str) -> None:
        """Change rows as any client may. Each statement must change at least one."""
        with psycopg.connect(self.database_url) as connection:
            _change(connection, statements)

    def damage(self, statements: str) -> None:
        """Change rows behind the back of the triggers that protect them."""
        with psycopg.connect(self.database_url) as connection, without_guards(connection):
            _change(connection, statements)


def _change(connection: psycopg.Connection, statements: str) -> None:
    cursor = connection.execute(statements.encode())
    while True:
        assert cursor.rowcount > 0, statements
        if not cursor.nextset():
            return
