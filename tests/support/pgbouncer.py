"""A PgBouncer in transaction mode between a test and its database."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from billing_cli.simulator.postgres import UNPRIVILEGED_USER

if TYPE_CHECKING:
    from collections.abc import Iterator

CONFIGURATION = """
[databases]
pooled = {database}

[pgbouncer]
pool_mode = transaction
default_pool_size = {pool_size}
auth_type = any
listen_addr =
listen_port = 6432
unix_socket_dir = {directory}
logfile = {directory}/log
"""


@contextmanager
def pooled(database_url: str, *, pool_size: int = 2, is_up: bool = True) -> Iterator[str]:
    """Run a pooler for the length of the block, and return the URI of the database through it.

    Skips the test where the program is not installed. `is_up` says whether there is a database.
    """
    program = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None:
        pytest.skip("pgbouncer is not installed")
    with tempfile.TemporaryDirectory(prefix="billing-pool-") as name:
        directory = Path(name)
        parts = {"password": None} | conninfo_to_dict(database_url)
        database = " ".join(f"{key}={value}" for key, value in parts.items() if value is not None)
        configuration = directory / "pgbouncer.ini"
        configuration.write_text(
            CONFIGURATION.format(database=database, directory=directory, pool_size=pool_size)
        )
        arguments = [program, "--quiet", str(configuration)]
        if os.geteuid() == 0:
            shutil.chown(directory, UNPRIVILEGED_USER)
            arguments += ["--user", UNPRIVILEGED_USER]
        url = f"postgresql://postgres@/pooled?host={directory}&port=6432"
        with subprocess.Popen(arguments, stdin=subprocess.DEVNULL) as process:  # noqa: S603
            try:
                if is_up:
                    wait_until_open(url, process)
                else:
                    wait_until_listening(directory / ".s.PGSQL.6432", process)
                yield url
            finally:
                process.terminate()


def wait_until_open(url: str, process: subprocess.Popen[bytes]) -> None:
    """Return as soon as the pooler answers; fail where it has ended instead."""
    while process.poll() is None:
        try:
            psycopg.connect(url).close()
        except psycopg.OperationalError:
            continue
        else:
            return
    pytest.fail(f"pgbouncer ended with status {process.returncode}")


def wait_until_listening(path: Path, process: subprocess.Popen[bytes]) -> None:
    """Return as soon as the pooler takes connections, whatever it does with them."""
    while process.poll() is None:
        with socket.socket(socket.AF_UNIX) as client:
            if client.connect_ex(str(path)) == 0:
                return
    pytest.fail(f"pgbouncer ended with status {process.returncode}")
