"""A story that goes on over the end of a month, so that the evidence of its first part can go."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from billing_cli.features.audit.job import audit, audit_result, record_audit
from billing_cli.features.prune.job import prune
from billing_cli.simulator.server import serve
from tests.integration.audit.full_story import FullStory, copied

if TYPE_CHECKING:
    from collections.abc import Iterator

    from billing_cli.features.prune.result import PruneResult
    from billing_cli.jobs.context import JobContext
    from tests.support.postgres import Databases

MAY = datetime(2026, 5, 1, tzinfo=UTC)
JUNE = datetime(2026, 6, 1, tzinfo=UTC)
JULY = datetime(2026, 7, 1, tzinfo=UTC)


class LongStory(FullStory):
    """A full story that reaches May after so many minutes; charges are stamped in its own time."""

    def __init__(self, database_url: str, job_url: str, minutes_of_april: float) -> None:
        super().__init__(database_url, job_url, MAY - timedelta(minutes=minutes_of_april))

    def prove(self, now: datetime) -> None:
        """Audit everything, and have the run history say so."""

        def work(context: JobContext) -> Any:
            record_audit(context, audit_result(context, audit(context), now))

        self.job(work, now)

    def prune(self, now: datetime, keep_months: int = 1, **options: Any) -> PruneResult:
        """Prune as the owner of the tables."""
        job: Any = self.job
        jobs_url, self.job_url = self.job_url, self.database_url
        try:
            options.setdefault("is_archive_waived", True)
            result: PruneResult = job(prune, now, keep_months=keep_months, **options)
        finally:
            self.job_url = jobs_url
        return result

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Return what a query finds."""
        with psycopg.connect(self.database_url) as connection:
            return connection.execute(query.encode()).fetchall()


@contextmanager
def told_long_story(
    database_url: str, job_url: str, minutes_of_april: float
) -> Iterator[LongStory]:
    """Tell the story; its exporters are there as long as the block lasts."""
    story = LongStory(database_url, job_url, minutes_of_april)
    with serve(story.fleet) as running:
        story.running = running
        story.play()
        yield story


@pytest.fixture(scope="session")
def told(databases: Databases) -> Iterator[LongStory]:
    """Return a story of which eight minutes are in April, proven, for copies."""
    with (
        databases.database(migrated=True) as url,
        told_long_story(url, databases.job_url(url), 8) as made,
    ):
        made.prove(JUNE)
        yield made


@pytest.fixture
def story(told: LongStory, databases: Databases) -> Iterator[LongStory]:
    """Return a story of which eight minutes are in April, proven, at the beginning of June."""
    with copied(told, databases) as made:
        yield made
