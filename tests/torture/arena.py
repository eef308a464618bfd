"""A PostgreSQL server of an attack's own, which may be crashed, and databases made on demand."""

from __future__ import annotations

from contextlib import contextmanager
from itertools import count
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

import psycopg
from psycopg import sql

from billing_cli.features.migrate.job import migrate
from billing_cli.simulator.postgres import start_postgres
from tests.support.postgres import SessionDirectory

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TEMPLATE = "migrated"
JOB_ROLE = "jobs"

# Unless it is durable, the server does without fsync, which only a crash of the machine would miss.
# What it said to be committed must survive its own crash all the same.
COMMITS_LAST = "ALTER ROLE ALL SET synchronous_commit = on"


class Place(NamedTuple):
    """A database: as its owner reaches it, and as the jobs do, who may do nothing else."""

    database_url: str
    job_url: str

    @property
    def name(self) -> str:
        """The database's name on its server."""
        return urlsplit(self.database_url).path.removeprefix("/")


@contextmanager
def opened_arena() -> Iterator[Arena]:
    """Run a server as long as the block lasts; then it is gone with all that it held."""
    directory = SessionDirectory()
    try:
        yield Arena(directory.path / "server")
    finally:
        directory.remove()


class Arena:
    """A server with a migrated database to copy. Made by `opened_arena`.

    Its address stays the same when it is crashed and started again.
    """

    def __init__(self, directory: Path, *, durable: bool = False) -> None:
        self._durable = durable
        self.server = start_postgres(directory, durable=durable)
        self.server_url = self.server.url()
        self._names = (f"account_{number}" for number in count())
        self._execute(sql.SQL(COMMITS_LAST))
        self._execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(JOB_ROLE)))
        self._create(TEMPLATE, "template0")
        migrate(self._place(TEMPLATE).database_url, grant_to=JOB_ROLE)

    @contextmanager
    def database(self, *, migrated: bool = True, copy_of: Place | None = None) -> Iterator[Place]:
        """Make a database for the length of the block; it goes with all its connections.

        It is migrated and without rows, or nothing was ever created in it, or it is a copy of
        another one, to which nobody may be connected meanwhile.
        """
        name = next(self._names)
        template = copy_of.name if copy_of else TEMPLATE if migrated else "template0"
        self._create(name, template)
        try:
            yield self._place(name)
        finally:
            self.start()
            self._execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))

    def crash(self) -> None:
        """Let the server die on the spot; its memory is gone, and it recovers at the next start."""
        self.server.run("pg_ctl", "stop", "--wait", "--silent", "--mode=immediate")

    def start(self) -> None:
        """Start the server, if it does not run, at the address that it always had."""
        start_postgres(self.server.directory, durable=self._durable)

    def _place(self, name: str) -> Place:
        parts = urlsplit(self.server_url)._replace(path=f"/{name}")
        server = parts.netloc.rpartition("@")[2]
        return Place(parts.geturl(), parts._replace(netloc=f"{JOB_ROLE}@{server}").geturl())

    def _create(self, name: str, template: str) -> None:
        # Copying files is the quicker way where nothing waits for the disk.
        statement = sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy")
        self._execute(statement.format(sql.Identifier(name), sql.Identifier(template)))

    def _execute(self, statement: sql.SQL | sql.Composed) -> None:
        with psycopg.connect(self.server_url, autocommit=True) as connection:
            connection.execute(statement)
