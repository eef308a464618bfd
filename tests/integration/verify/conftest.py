"""A database that was billed and sealed over two days, to be copied and tampered with."""

from __future__ import annotations

import uuid
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from billing_cli.core.model import DeltaPolicy
from billing_cli.database.connecting import Database
from billing_cli.features.rerate.job import Order, rerate
from billing_cli.features.verify.job import verify
from billing_cli.jobs.context import JobContext, Tariff
from tests.support.sealing import DAY, Sealing
from tests.support.story import MINUTE, START, told_story

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from billing_cli.core.notes import SignerKey, VerifierKey
    from billing_cli.features.verify.result import VerifyReport
    from tests.support.postgres import Databases
    from tests.support.story import Story


class Sealed(NamedTuple):
    """A sealed database and its key; `every` checkpoint in a file, and all but the newest one."""

    url: str
    keys: tuple[SignerKey, VerifierKey]
    key_file: Path
    every: Path
    earlier: Path

    def context(self) -> JobContext:
        """Return what a job gets that works on the database as its owner, some days later."""
        return JobContext(
            run_id=str(uuid.uuid4()),
            clock=lambda: datetime(2026, 11, 28, tzinfo=UTC),
            database=Database(self.url),
            sources=(),
            tariff=Tariff(Decimal(0), 0, Decimal(0), "", "", None),
            deltas=DeltaPolicy(),
        )

    def verify(self, *kept: Path, **options: Any) -> VerifyReport:
        """Verify with what was kept."""
        given = {"checkpoint_files": kept, "key_files": [self.key_file], **options}
        return verify(self.context(), **given)


@pytest.fixture(scope="module")
def origin(databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sealed]:
    """Bill two accounts for seven minutes and rerate one, on two days; seal four times."""
    directory = tmp_path_factory.mktemp("sealed")
    with databases.database(migrated=True) as url:
        with told_story(url, databases.job_url(url)) as story:
            sealing = Sealing(story, directory, url)
            node = story.add_node("jp-1")
            for tag in ("a", "b"):
                node.add_stream(story.add_user().uuid, tag)
            story.minute()
            story.collect()
            for minutes, later in ((2, 0 * DAY), (2, 0 * DAY), (1, DAY)):
                _grow(story, minutes)
                sealing.seal(later)
            earlier = directory / "earlier"
            earlier.write_bytes(sealing.file.read_bytes())
            _grow(story, 2)
            story.price *= 2
            order = Order(START, START + 2 * MINUTE, "v2", "agreed")
            assert rerate(replace(story.context(), job="rerate"), order).corrections
            sealing.seal(DAY)
        yield Sealed(url, sealing.keys, sealing.key_file, sealing.file, earlier)


@pytest.fixture
def sealed(databases: Databases, origin: Sealed) -> Iterator[Sealed]:
    """Return a copy of it."""
    with databases.copy_of(origin.url) as url:
        yield origin._replace(url=url)


def _grow(story: Story, minutes: int) -> None:
    (node,) = story.fleet.nodes.values()
    for _ in range(minutes):
        story.minute(*((stream, 1_000, 2_000) for stream in node.streams))
        story.collect()
