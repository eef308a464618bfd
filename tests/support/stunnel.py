"""A real stunnel between a test and its database, at either end of an encrypted line."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trustme
from psycopg.conninfo import conninfo_to_dict, make_conninfo

if TYPE_CHECKING:
    from collections.abc import Iterator

SERVER_NAME = "db.example.net"

# Its own file for each service, so that one end can be stopped without the other.
CONFIGURATION = """
foreground = yes
pid =
syslog = no
debug = err
output = {directory}/log
[postgresql]
accept = 127.0.0.1:{port}
{service}
"""

# The near end, as it stands beside `billing`: what the manual says, with our own addresses.
MANUAL = Path(__file__).parents[2] / "docs" / "database.md"
OWN_ADDRESSES = {
    "accept": None,
    "connect": "127.0.0.1:{port}",
    "CAfile": "{directory}/ca.pem",
    "checkHost": "{name}",
}

# The far end, as it stands beside PostgreSQL.
SERVER = """
cert = {directory}/server.pem
connect = {target}
"""

# What takes PostgreSQL's own way of asking for TLS, instead of TLS from the first byte on.
POSTGRESQL_PROTOCOL = "protocol = pgsql\n"

# Handed a listening socket as a service manager would, stunnel can be connected to at once, and
# no port is guessed.
LAUNCHER = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
os.execv(sys.argv[2], sys.argv[2:])
"""


@dataclass(frozen=True, slots=True)
class End:
    """One end of a line, while it runs."""

    port: int
    process: subprocess.Popen[bytes]

    def stop(self) -> None:
        """End it, and with it all that it carries."""
        self.process.terminate()
        self.process.wait()


@contextmanager
def far_end(database_url: str, *, postgresql: bool = False) -> Iterator[FarEnd]:
    """Run the end that stands before the database; `postgresql` is what libpq itself speaks.

    Skips the test where the program is not installed.
    """
    given = conninfo_to_dict(database_url)
    host, port = str(given.get("host") or "127.0.0.1"), given.get("port") or 5432
    target = f"{host}/.s.PGSQL.{port}" if host.startswith("/") else f"{host}:{port}"
    with tempfile.TemporaryDirectory(prefix="billing-tunnel-") as name:
        directory = Path(name)
        authority = trustme.CA()
        authority.cert_pem.write_to_path(str(directory / "ca.pem"))
        certificate = authority.issue_cert(SERVER_NAME, "127.0.0.1")
        key = directory / "server.pem"
        key.touch(mode=0o600)
        certificate.private_key_and_cert_chain_pem.write_to_path(str(key))
        service = SERVER.format(directory=directory, target=target)
        with _running(directory, "far", service, postgresql=postgresql) as end:
            yield FarEnd(end, directory, database_url, postgresql)


@dataclass(frozen=True, slots=True)
class FarEnd:
    """The end before the database, and what clients need to trust it."""

    end: End
    directory: Path
    database_url: str
    postgresql: bool

    @property
    def ca_bundle(self) -> str:
        """The file of the authority that signed its certificate."""
        return str(self.directory / "ca.pem")

    def url(self, **parameters: str) -> str:
        """Return the connection string for who speaks TLS to it without a tunnel."""
        return _through(self.database_url, self.end, parameters)

    @contextmanager
    def near_end(self, name: str = SERVER_NAME) -> Iterator[tuple[End, str]]:
        """Run the other end, which trusts it under a name; gives the database's URI as well."""
        service = _service_of_the_manual().format(
            port=self.end.port, directory=self.directory, name=name
        )
        with _running(self.directory, "near", service, postgresql=self.postgresql) as end:
            yield end, _through(self.database_url, end, {"sslmode": "disable"})


@contextmanager
def _running(directory: Path, name: str, service: str, *, postgresql: bool) -> Iterator[End]:
    program = shutil.which("stunnel4", path=f"{os.environ.get('PATH', '')}:/usr/bin")
    if program is None:
        pytest.skip("stunnel4 is not installed")
    own = directory / name
    own.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        configuration = own / "stunnel.conf"
        configuration.write_text(
            CONFIGURATION.format(
                directory=own,
                port=port,
                service=service + (POSTGRESQL_PROTOCOL if postgresql else ""),
            )
        )
        handle = listener.fileno()
        process = subprocess.Popen(  # noqa: S603 - a program of the system, our own arguments
            [sys.executable, "-c", LAUNCHER, str(handle), program, str(configuration)],
            pass_fds=[handle],
            stdin=subprocess.DEVNULL,
        )
    with process:
        end = End(port, process)
        try:
            yield end
        finally:
            end.stop()


def _service_of_the_manual() -> str:
    """Return the manual's configuration as a template."""
    _, _, rest = MANUAL.read_text(encoding="utf-8").partition("[account]\n")
    lines = []
    for line in rest.partition("```")[0].splitlines():
        key, _, value = (part.strip() for part in line.partition("="))
        own = OWN_ADDRESSES.get(key, value)
        if own is not None:
            lines.append(f"{key} = {own}" if value else line)
    return "\n".join([*lines, ""])


def _through(database_url: str, end: End, parameters: dict[str, str]) -> str:
    given = conninfo_to_dict(database_url) | {"host": "127.0.0.1", "port": str(end.port)}
    return make_conninfo(**{**given, **parameters})
