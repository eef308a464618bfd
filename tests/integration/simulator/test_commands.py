"""`python -m billing_cli.simulator`: what it says where it can't do what is asked."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from billing_cli.simulator import postgres
from billing_cli.simulator.__main__ import cli


def simulator(*arguments: str) -> Result:
    """Run a command; a traceback is no answer."""
    done = CliRunner().invoke(cli, arguments)
    assert done.exception is None or isinstance(done.exception, SystemExit)
    return done


def test_a_port_in_use_is_named() -> None:
    """It is the first thing that goes wrong with an exporter, and another port helps."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = simulator("exporter", "--port", str(port))
    assert done.exit_code == 1
    assert done.stderr == (
        f"Error: can't listen on 127.0.0.1, port {port}: Address already in use; "
        "choose another by --port or --bind\n"
    )


def test_a_port_that_cannot_be_is_a_usage_error() -> None:
    """Ports end at 65535."""
    done = simulator("exporter", "--port", "99999")
    assert (done.exit_code, "0<=x<=65535" in done.stderr) == (2, True)


@pytest.mark.parametrize(
    ("url", "advice"),
    [
        ("postgresql://billing@127.0.0.1:1/account", "check that the server runs"),
        ("s3cr3t", "DATABASE_URL is no connection string"),
    ],
)
def test_accounts_say_what_is_wrong_with_the_database(url: str, advice: str) -> None:
    """In one line, which does not repeat the connection string."""
    done = simulator("accounts", "--database-url", url)
    assert (done.exit_code, done.stderr.count("\n")) == (1, 1)
    assert advice in done.stderr
    assert "s3cr3t" not in done.stderr


def test_accounts_need_the_tables(empty_database_url: str) -> None:
    """Without them, the command that makes them is named."""
    done = simulator("accounts", "--database-url", empty_database_url)
    assert done.exit_code == 1
    assert "run `billing migrate --create-shared-tables`" in done.stderr


@pytest.mark.parametrize("command", ["postgres", "stop"])
def test_a_directory_that_may_not_be_used_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    """Root may use any, so the refusal is played."""

    def refuse(path: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "iterdir" if command == "postgres" else "is_dir", refuse)
    done = simulator(command, str(tmp_path))
    assert done.exit_code == 1
    assert done.stderr.startswith(f"Error: {tmp_path}")
    assert done.stderr.endswith(": Permission denied: choose another directory\n")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to become someone else")
def test_root_gets_a_database_below_a_directory_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server may not enter it: the data are elsewhere, and a link leads to them."""
    monkeypatch.delenv(postgres.PROGRAMS_VARIABLE, raising=False)
    tmp_path.chmod(0o700)
    directory = tmp_path / "database"
    started = simulator("postgres", str(directory))
    elsewhere = directory.readlink()
    try:
        assert started.stderr == (
            f"the database is in {elsewhere}, to which {directory} is a link\n"
        )
        again = simulator("postgres", str(directory))
        assert (again.exit_code, again.stdout) == (0, started.stdout)
        assert simulator("stop", str(directory)).exit_code == 0
        assert not (elsewhere / "data/postmaster.pid").exists()
    finally:
        shutil.rmtree(elsewhere)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to become someone else")
def test_a_link_to_a_database_that_was_removed_is_made_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is below /tmp does not survive a restart of the machine."""
    monkeypatch.delenv(postgres.PROGRAMS_VARIABLE, raising=False)
    with tempfile.TemporaryDirectory() as closed:
        directory = Path(closed) / "database"
        directory.symlink_to(f"{closed}/removed")
        elsewhere = postgres.placed_elsewhere(directory)
        assert elsewhere is not None
        assert directory.resolve() == elsewhere
        elsewhere.rmdir()
