"""The tutorial and the install page work as they stand, from an empty directory."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from billing_cli.simulator.exporter import live_fleet
from billing_cli.simulator.postgres import running_postgres
from billing_cli.simulator.server import serve

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[3]
BLOCK = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)

# What the pages call by name, and a test must not do to its machine.
STAND_INS = {
    "apt-get": "exit 0",
    "systemctl": """cd "$HERE/etc/systemd/system"
[ "$1" != cat ] || exec cat "$2" billing-.service.d/*.conf""",
    # What the wrapper hands over is tested by itself.
    "systemd-run": """while [ "$1" != -- ]; do shift; done; shift 2
BILLING_CONFIG="$HERE/etc/billing/billing.toml" exec "$PROGRAM" "$@\"""",
    "groupadd": "exit 0",
    "groupdel": "exit 0",
    "useradd": "exit 0",
    "chgrp": "exit 0",
    "man": "exit 0",
    "python3": """case "$*" in
  "-m venv "*) mkdir -p "$3/bin"; ln -s "$HERE/stand-ins/pip" "$3/bin/pip"
    ln -s "$PROGRAM" "$3/bin/billing"
    cp -r "$SOURCE/share" "$3/"; mv "$3/share/billing" "$3/bin-of-share"
    mkdir "$3/share/billing"; mv "$3/bin-of-share" "$3/share/billing/bin"
    cp -r "$SOURCE/systemd" "$3/share/billing/" ;;
esac""",
    "pip": "exit 0",
    # A release is built where everything is, and installed in an empty environment, by `.ci/run`.
    "make": """mkdir -p dist; cp "$SOURCE"/requirements*.lock dist; cd dist
touch billing-0-py3-none-any.whl; sha256sum * > SHA256SUMS""",
    # `su - postgres -c COMMAND`
    "su": 'PGHOST="$SOCKETS" PGUSER=postgres exec /bin/sh -c "$4"',
}


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
    script = "\n".join(BLOCK.findall((ROOT / "docs" / "tutorial.md").read_text("utf-8")))
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
        text = (ROOT / "docs" / "install.md").read_text("utf-8")
        script = "\n".join(BLOCK.findall(text.partition("## Containers")[0]))
        removal = "\n".join(BLOCK.findall(text.partition("## Completion")[2]))
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
            here(removal, directory, "", sockets[1]),
            directory,
            environment(directory, server.programs, sockets[1]),
        )
        assert removed.returncode == 0, removed
        assert not (directory / "etc/billing").exists()
        assert not (directory / "opt/billing").exists()


def here(script: str, directory: Path, exporter: str, sockets: str) -> str:
    """Return a script of the page for a machine that is a directory."""
    for path in ("/opt/billing", "/usr/local/bin", "/etc/", "/var/lib/billing-metrics"):
        script = re.sub(rf"(?<![\w/]){path}", f"{directory}{path}", script)
    script = script.replace("https://jp-1.example.net:8443", exporter)
    script = script.replace("@127.0.0.1:5432/account", f"@/account?host={sockets}")
    # As the page says of a database without the shared tables.
    script = script.replace("migrate --grant-to", "migrate --create-shared-tables --grant-to")
    return script.replace("billing init ", f"billing init --directory {directory}/etc/billing ")


def environment(directory: Path, programs: Path, sockets: str) -> dict[str, str]:
    """Return the environment of the page's shell, with the stand-ins first."""
    stand_ins = directory / "stand-ins"
    stand_ins.mkdir(exist_ok=True)
    for name, body in STAND_INS.items():
        (stand_ins / name).write_text(f"#!/bin/sh\n{body}\n", "utf-8")
        (stand_ins / name).chmod(0o755)
    for name in ("usr/local/bin", "etc/systemd/system", "etc/bash_completion.d"):
        (directory / name).mkdir(parents=True, exist_ok=True)
    return {
        "PATH": f"{stand_ins}:{directory}/usr/local/bin:{programs}:/usr/bin:/bin",
        "HERE": str(directory),
        "SOURCE": str(ROOT),
        "PROGRAM": str(Path(sys.executable).with_name("billing")),
        "SOCKETS": sockets.replace("%2F", "/"),
    }


def run(
    script: str, directory: Path, environment: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    """Run a script to its end, and end what it left behind; the first error ends it."""
    return subprocess.run(  # noqa: S603 - the page's own commands
        ["/bin/bash", "-c", f"set -euo pipefail\n{script}"],
        cwd=directory,
        env={"LANG": "C.UTF-8", "HOME": str(directory), **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
