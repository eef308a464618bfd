"""The tutorial and the install page work as they stand, from an empty directory."""

from __future__ import annotations

import re
import shutil
import socket
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from billing_cli.simulator.exporter import live_fleet
from billing_cli.simulator.postgres import running_postgres
from billing_cli.simulator.server import serve
from tests.support.pages import blocks, environment, here, run

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def directory() -> Iterator[Path]:
    """Return an empty directory that the unprivileged user of a database may enter."""
    path = Path(tempfile.mkdtemp(prefix="billing-docs-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path, ignore_errors=True)


def test_the_tutorial_leads_to_a_charge_and_its_explanation(directory: Path) -> None:
    """Each block of the page, in one shell."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    script = blocks("tutorial.md")
    programs = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    done = run(script.replace("8080", str(port)), directory, {"PATH": programs})
    assert done.returncode == 0, done
    assert re.search(r"^collect: ok - \d+ minutes written", done.stdout, re.MULTILINE)
    assert re.search(r"^ +balance 0\.000000000 -> -0\.000", done.stdout, re.MULTILINE)
    assert "audit: clean" in done.stdout


def test_the_install_page_leads_to_a_first_run_and_away_again(directory: Path) -> None:
    """Below a directory in place of /, with stand-ins for package and unit manager."""
    fleet = live_fleet(["jp-1"], 2, timedelta(minutes=90), datetime.now(UTC))
    with running_postgres(directory / "server") as server, serve(fleet) as exporters:
        sockets = re.search(r"host=([^&]+)", server.url())
        assert sockets is not None
        script = blocks("install.md", end="## Containers")
        # As the page says of a database without the shared tables.
        script = script.replace("migrate --grant-to", "migrate --create-shared-tables --grant-to")
        removal = blocks("install.md", "## Completion")
        done = run(
            here(script, directory, exporters.base_url("jp-1"), sockets[1]),
            directory,
            environment(directory, server.programs, sockets[1]),
        )
        assert done.returncode == 0, done
        assert "collect: ok" in done.stdout
        assert "catch-up: ok" in done.stdout
        assert (directory / "etc/billing/credentials/database-url").stat().st_mode & 0o077 == 0o040
        removed = run(
            here(removal, directory),
            directory,
            environment(directory, server.programs, sockets[1]),
        )
        assert removed.returncode == 0, removed
        assert not (directory / "etc/billing").exists()
        assert not (directory / "opt/billing").exists()
