"""A story whose runs are sealed, and verified by checkpoints that are kept."""

from __future__ import annotations

import uuid
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import psycopg
from psycopg import sql

from billing_cli.core.notes import format_verifier_key
from billing_cli.database.connecting import Database
from billing_cli.features.migrate.job import migrate
from billing_cli.features.seal.file import open_checkpoints
from billing_cli.features.seal.job import seal
from billing_cli.features.verify.job import verify
from billing_cli.signatures import generate_key
from tests.support.guards import without_guards

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from billing_cli.features.seal.result import SealResult
    from billing_cli.features.verify.result import Finding, VerifyReport
    from billing_cli.jobs.context import JobContext
    from tests.support.postgres import Databases
    from tests.support.story import Story

DAY = timedelta(days=1)


class Sealing:
    """Seals a story's database as `seal_url`, and keeps each checkpoint in a file."""

    def __init__(self, story: Story, directory: Path, seal_url: str) -> None:
        self.story = story
        self.seal_url = seal_url
        self.keys = generate_key("example.com/billing")
        self.file = directory / "checkpoints"
        self.key_file = directory / "key.pub"
        self.key_file.write_text(format_verifier_key(self.keys[1]) + "\n")

    def context(self, later: timedelta = timedelta()) -> JobContext:
        """Return what a job gets that runs so much later than all that was told."""
        now = self.story.now + later
        return replace(
            self.story.context(),
            run_id=str(uuid.uuid4()),
            clock=lambda: now,
            database=Database(self.seal_url),
        )

    def seal(self, later: timedelta = timedelta()) -> SealResult:
        """Seal what was committed, and keep the checkpoint."""
        with open_checkpoints(self.file) as file:
            result = seal(self.context(later), self.keys, kept=file.newest)
            file.append(result.checkpoint)
        return result

    def verify(self, **options: Any) -> VerifyReport:
        """Verify with all that was kept, as the role of the jobs."""
        given = {"checkpoint_files": [self.file], "key_files": [self.key_file], **options}
        return verify(self.story.context(), **given)

    def findings(self, **options: Any) -> list[Finding]:
        """Return what a verification finds."""
        return self.verify(**options).findings


def tamper(database_url: str, *statements: str) -> None:
    """Execute statements as a superuser whom no trigger stops."""
    with psycopg.connect(database_url) as connection, without_guards(connection):
        for statement in statements:
            connection.execute(statement.encode())


@contextmanager
def seal_role(databases: Databases, database_url: str) -> Iterator[str]:
    """Make a role that may run `seal` on a database; return the URL by which it connects."""
    name = f"{urlsplit(database_url).path[1:]}_seal"
    identifier = sql.Identifier(name)
    databases.admin.execute(sql.SQL("CREATE ROLE {} LOGIN").format(identifier))
    migrate(database_url, grant_seal_to=name)
    yield f"{database_url}&user={name}".replace("postgres@", "", 1)
    with psycopg.connect(database_url, autocommit=True) as opened:
        opened.execute(sql.SQL("DROP OWNED BY {}").format(identifier))
    databases.admin.execute(sql.SQL("DROP ROLE {}").format(identifier))
