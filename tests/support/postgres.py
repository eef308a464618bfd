"""A PostgreSQL server for a test session, and a database of its own for each test.

The server is an embedded one, started by the first test that needs it, or the one that
BILLING_TEST_DATABASE_URL names (a URI whose role may create databases). Workers of pytest-xdist
share it: what they do once for all of them happens behind a lock on a file.

Jobs run as a role of their own, which may do what they need and nothing more; a test sets the
scene, and looks at what became of it, as the role that owns the database.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import psycopg
from psycopg import sql

from billing_cli.features.migrate.job import migrate
from billing_cli.simulator.postgres import EmbeddedPostgresError, start_postgres, stop_postgres
from tests.support.reuse import Definitions, empty, read_original

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
URL_VARIABLE = "BILLING_TEST_DATABASE_URL"
PREFIX = "billing-tests-"
# Copying a database into memory takes a tenth of the time; all of a session's need about 300 MB.
MEMORY = Path("/dev/shm")  # noqa: S108 - each session makes a directory of its own in it
NEEDED_BYTES = 1024**3
REMOVALS = 100
REMOVAL_PAUSE_SECONDS = 0.2


class Databases:
    """Makes databases on the session's server, quickly: each is a copy of a migrated one."""

    def __init__(self, session_directory: Path, worker: str) -> None:
        self.names = (f"{_database_prefix(session_directory)}_{worker}_{i}" for i in count())
        self.template = f"{_database_prefix(session_directory)}_template"
        self.job_role = _job_role(session_directory)
        with _locked(session_directory / "server.lock"):
            self.server_url = _server_url(session_directory)
            self.admin = psycopg.connect(self.server_url, autocommit=True)
            # Copying files is the quicker way where nothing waits for the disk, as in our own
            # server; before PostgreSQL 15 it is the only one.
            is_chosen = URL_VARIABLE not in os.environ and self.admin.info.server_version >= 150000
            self.strategy = sql.SQL("STRATEGY file_copy" if is_chosen else "")
            ready = session_directory / "template.ready"
            if not ready.exists():
                if URL_VARIABLE not in os.environ:
                    # No database is there for long enough to be worth looking after.
                    self.admin.execute("ALTER SYSTEM SET autovacuum = off")
                    self.admin.execute("SELECT pg_reload_conf()")
                self._create_job_role()
                self._create(self.template, "template0")
                migrate(self.url(self.template), grant_to=self.job_role)
                ready.touch()
            # Emptying takes a superuser, which the role of a given server need not be.
            self.original = read_original(self.url(self.template)) if is_chosen else None
            self.emptied: dict[str, Definitions] = {}

    def url(self, name: str) -> str:
        """Return the URI of a database of the server."""
        return urlsplit(self.server_url)._replace(path=f"/{name}").geturl()

    def job_url(self, url: str) -> str:
        """Return the URI of the same database for the role that runs jobs."""
        parts = urlsplit(url)
        server = parts.netloc.rpartition("@")[2]
        return parts._replace(netloc=f"{self.job_role}:{self.job_role}@{server}").geturl()

    @contextmanager
    def database(self, *, migrated: bool) -> Iterator[str]:
        """Make a database for the length of the block; its connections end with it."""
        if not (migrated and self.original):
            name = next(self.names)
            self._create(name, self.template if migrated else "template0")
            try:
                yield self.url(name)
            finally:
                self._drop(name)
            return
        if self.emptied:
            name, definitions = self.emptied.popitem()
        else:
            name, definitions = next(self.names), self.original.definitions
            self._create(name, self.template)
        try:
            yield self.url(name)
        finally:
            found = empty(self.url(name), definitions, self.original)
            if found is None:
                self._drop(name)
            else:
                self.emptied[name] = found

    @contextmanager
    def copy_of(self, url: str) -> Iterator[str]:
        """Copy a database that nobody is connected to, for the length of the block."""
        name = next(self.names)
        self._create(name, urlsplit(url).path[1:])
        try:
            yield self.url(name)
        finally:
            self._drop(name)

    def close(self) -> None:
        """Leave the server, which other workers may still need."""
        self.admin.close()

    def _create_job_role(self) -> None:
        # The password is for servers that ask for one; the embedded one trusts everyone.
        statement = sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}")
        self.admin.execute(
            statement.format(sql.Identifier(self.job_role), sql.Literal(self.job_role))
        )

    def _create(self, name: str, template: str) -> None:
        statement = sql.SQL("CREATE DATABASE {} TEMPLATE {} {}")
        self.admin.execute(
            statement.format(sql.Identifier(name), sql.Identifier(template), self.strategy)
        )
        if template == "template0" and self.admin.info.server_version < 150000:
            # What newer versions have from the start, and `migrate` asks for.
            with psycopg.connect(self.url(name), autocommit=True) as connection:
                connection.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC")

    def _drop(self, name: str) -> None:
        statement = sql.SQL("DROP DATABASE {} WITH (FORCE)")
        self.admin.execute(statement.format(sql.Identifier(name)))


class SessionDirectory:
    """What the workers of a session share. Whoever makes it holds its lock, and removes it.

    Where a session is killed its lock is released: a process that waits for that removes its
    directory and its server. Where that was killed as well, the next session does.
    """

    def __init__(self, *, in_memory: bool = False) -> None:
        """Make the directory, `in_memory` where there is room and no TMPDIR says otherwise."""
        _remove_abandoned()
        parent = MEMORY if in_memory and _has_room_in_memory() else None
        new = Path(tempfile.mkdtemp(prefix="billing-new-", dir=parent))
        new.chmod(0o755)  # The server of root's tests runs as someone else.
        self._lock = (new / "session.lock").open("w")
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        # Under its new name it can be found as abandoned, which the lock now prevents.
        self.path = new.rename(new.with_name(new.name.replace("billing-new-", PREFIX)))
        # In a session of its own: it outlives whoever is killed with all of a terminal or a group.
        self._remover = subprocess.Popen(  # noqa: S603 - our own program
            [sys.executable, "-m", "tests.support.remover", str(self.path)],
            cwd=ROOT,
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def remove(self) -> None:
        """Drop what the session made on the server, or the server itself."""
        _remove(self.path)
        self._lock.close()
        self._remover.wait()


def _has_room_in_memory() -> bool:
    if "TMPDIR" in os.environ or not os.access(MEMORY, os.W_OK | os.X_OK):
        return False
    return shutil.disk_usage(MEMORY).free >= NEEDED_BYTES


def _server_url(session_directory: Path) -> str:
    given = os.environ.get(URL_VARIABLE)
    return given or start_postgres(session_directory / "server", durable=False).url()


def _database_prefix(session_directory: Path) -> str:
    return session_directory.name.replace("-", "_")


def _job_role(session_directory: Path) -> str:
    return f"{_database_prefix(session_directory)}_jobs"


def remove_when_released(directory: Path) -> None:
    """Wait until nobody holds a session's lock; remove what is left of the session.

    A server that was just being started can't be stopped before it has.
    """
    with suppress(OSError), (directory / "session.lock").open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
    for _ in range(REMOVALS):
        with suppress(OSError, EmbeddedPostgresError):
            _remove(directory)
        if not directory.exists():
            return
        time.sleep(REMOVAL_PAUSE_SECONDS)


def _remove_abandoned() -> None:
    parents = {Path(tempfile.gettempdir()), MEMORY}
    for directory in (found for parent in parents for found in parent.glob(f"{PREFIX}*")):
        with suppress(OSError), (directory / "session.lock").open("r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _remove(directory)


def _remove(session_directory: Path) -> None:
    if (session_directory / "server").is_dir():
        stop_postgres(session_directory / "server")
    elif (session_directory / "template.ready").exists() and URL_VARIABLE in os.environ:
        _drop_databases(os.environ[URL_VARIABLE], session_directory)
    shutil.rmtree(session_directory)


def _drop_databases(server_url: str, session_directory: Path) -> None:
    query = "SELECT datname FROM pg_database WHERE starts_with(datname, %s)"
    with psycopg.connect(server_url, autocommit=True) as admin:
        for (name,) in admin.execute(query, (_database_prefix(session_directory),)).fetchall():
            admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
        role = sql.Identifier(_job_role(session_directory))
        admin.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(role))


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
