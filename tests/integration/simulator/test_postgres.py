from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from billing_cli.simulator import postgres
from billing_cli.simulator.postgres import (
    EmbeddedPostgresError,
    running_postgres,
    start_postgres,
    stop_postgres,
)

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def directory() -> Iterator[Path]:
    """Return a directory that the unprivileged user can be given, unlike pytest's own for root."""
    made = Path(tempfile.mkdtemp(prefix="billing-postgres-"))
    yield made
    stop_postgres(made)
    shutil.rmtree(made)


@pytest.fixture(autouse=True)
def _package() -> Iterator[None]:
    """Take the programs of the package, whichever version the other tests run on."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv(postgres.PROGRAMS_VARIABLE, raising=False)
        yield


def test_what_was_stored_is_there_when_the_server_runs_again(directory: Path) -> None:
    """A database that was kept can be looked at later."""
    with running_postgres(directory) as server:
        execute(server.url(), "CREATE TABLE kept AS SELECT 1 AS one")
    assert not server.is_running()
    with running_postgres(directory) as server:
        assert execute(server.url(), "SELECT one FROM kept") == (1,)


def test_starting_twice_joins_the_running_server(directory: Path) -> None:
    """A second caller uses what the first one started; whoever stops it stops it for both."""
    first = start_postgres(directory, durable=False)
    second = start_postgres(directory)
    assert second == first
    assert execute(second.url(), "SHOW fsync") == ("off",)
    second.stop()
    first.stop()
    assert not first.is_running()


def test_a_long_path_gets_a_short_socket(directory: Path) -> None:
    """The path of a Unix socket has a limit of about 100 characters, a directory's has not."""
    long = directory / ("long" * 25)
    directory.chmod(0o755)
    with running_postgres(long, durable=False) as server:
        assert str(long) not in server.url()
        assert execute(server.url(), "SELECT 1") == (1,)


def test_a_directory_that_holds_something_else_is_refused(directory: Path) -> None:
    """A mistyped path must not be filled with a database, or change its owner."""
    (directory / "letter").touch()
    with pytest.raises(EmbeddedPostgresError, match="not empty"):
        start_postgres(directory)
    (directory / "letter").unlink()


def test_a_missing_package_is_named(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server is an extra; the error says how to get it."""
    with monkeypatch.context() as patch:
        patch.setattr(postgres, "find_spec", lambda _name: None)
        with pytest.raises(EmbeddedPostgresError, match=r"billing\[demo\]"):
            start_postgres(directory)


def test_the_servers_environment_is_its_own(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Variables that point the operator's own tools elsewhere do not reach it."""
    monkeypatch.setenv("PGPORT", "6000")
    monkeypatch.setenv("PGDATA", "/nowhere")
    monkeypatch.setenv("LC_ALL", "no-such-locale")
    with running_postgres(directory, durable=False) as server:
        assert execute(server.url(), "SELECT 1") == (1,)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to become someone else")
def test_root_is_told_of_a_directory_that_the_server_may_not_enter(directory: Path) -> None:
    """PostgreSQL does not run as root, and no mode of a parent directory is changed for it."""
    directory.chmod(0o700)
    with pytest.raises(EmbeddedPostgresError, match=f"may not enter {directory}"):
        start_postgres(directory / "inner")
    assert directory.stat().st_mode & 0o777 == 0o700


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to become someone else")
def test_root_copies_programs_that_the_server_may_not_enter(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A virtual environment in root's home is closed to others."""
    with closed_package(monkeypatch), running_postgres(directory, durable=False) as server:
        assert server.programs.is_relative_to(directory)
        assert execute(server.url(), "SELECT 1") == (1,)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to become someone else")
def test_there_is_nothing_to_stop_where_no_server_ever_ran(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also in a directory that is root's alone, and with programs that are."""
    with closed_package(monkeypatch):
        stop_postgres(directory)
    assert list(directory.iterdir()) == []


@contextmanager
def closed_package(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Move the server's programs below a directory that only root may enter."""
    spec = find_spec(postgres.PACKAGE)
    assert spec is not None
    assert spec.submodule_search_locations is not None
    package = Path(spec.submodule_search_locations[0])
    with tempfile.TemporaryDirectory() as closed:
        for name in (package.name, f"{package.name}.libs"):
            (Path(closed) / name).symlink_to(package.with_name(name))
        spec.submodule_search_locations = [str(Path(closed) / package.name)]
        monkeypatch.setattr(postgres, "find_spec", lambda _name: spec)
        yield


def execute(url: str, statement: str) -> tuple[object, ...] | None:
    """Run one statement and return its first row, where it has rows."""
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement.encode())
        return cursor.fetchone() if cursor.description else None
