"""What a terminal of any width, a pipe and a shell that completes get to see."""

from __future__ import annotations

import os
import re
import subprocess
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from tests.cli.command import PYTHON_PATH, billing, command_line
from tests.support.forks import shown_on_terminal

if TYPE_CHECKING:
    from tests.cli.command import Site

CODES = re.compile(r"\x1b\[[\d;]*m")


@pytest.mark.parametrize("width", [40, 80])
def test_no_line_is_wider_than_the_terminal(site: Site, width: int) -> None:
    """Columns are left out, texts wrapped, or rows printed as blocks; from 80 on no uuid is cut."""
    site.has_two_nodes()
    site.billing("collect")
    (account,) = site.world.rows("SELECT account_uuid::text FROM billing.streams LIMIT 1")[0]
    month = f"{datetime.now(UTC):%Y-%m}"
    commands = [
        *("status --max-lag 1e12", "streams", "check", "audit", f"explain {account}"),
        *("sources list", "usage --by account", f"statement {account} --month {month}"),
    ]
    for command in commands:
        shown = on_terminal(site, width, *command.split())
        lines = [CODES.sub("", line) for line in shown.splitlines()]
        assert max(map(len, lines)) <= width, (command, lines)
    if width >= 80:
        assert account in CODES.sub("", on_terminal(site, width, "streams"))
    assert "\x1b[" in on_terminal(site, width, "status")
    assert "\x1b[" not in on_terminal(site, width, "status", NO_COLOR="1")


def test_a_pipe_gets_every_column_without_codes(site: Site) -> None:
    """Numbers to the right of their columns; CSV has raw values under the same names."""
    site.has_two_nodes()
    site.billing("collect")
    header, *rows = site.billing("streams").stdout.splitlines()
    assert header.split()[:2] == ["SOURCE", "NODE"]
    assert "\x1b" not in header + "".join(rows)
    end = header.index("PENDING") + len("PENDING")
    assert all(len(row) == end for row in rows)
    csv_header, *_ = site.billing("streams", "--output", "csv").stdout.splitlines()
    assert csv_header.startswith("source,node,inbound_tag,sample,account,state,")


def test_a_reader_that_has_seen_enough_changes_nothing(site: Site) -> None:
    """As with `billing status | head -1`: no error, and the exit code is the command's own."""
    site.has_two_nodes()
    reader, writer = os.pipe()
    os.close(reader)
    finished = subprocess.run(  # noqa: S603 - our own command
        command_line("status"),
        env={**PYTHON_PATH, **site.environment},
        stdin=subprocess.DEVNULL,
        stdout=writer,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(writer)
    assert (finished.returncode, finished.stderr) == (3, b"")


def test_a_shell_completes_sources_accounts_and_kinds(site: Site) -> None:
    """From configuration and database; where there is neither, nothing is said."""
    site.has_two_nodes()
    site.billing("collect")
    (account,) = site.world.rows("SELECT uuid::text FROM public.users ORDER BY 1 LIMIT 1")[0]
    assert completed(site.environment, "collect --source j") == ["plain,jp-1"]
    assert f"plain,{account}" in completed(site.environment, f"explain {account[:6]}")
    assert completed(site.environment, "explain user-00")[0] == "plain,user-001@example.com"
    assert completed(site.environment, "rerate --account user-00") == []
    assert completed(site.environment, "held list --kind dup") == ["plain,duplicate"]
    away = site.environment | {"DATABASE_URL": "postgresql://127.0.0.1:1/account"}
    assert completed(away, f"audit --account {account[:6]}") == []
    assert completed({}, "collect --source j") == []


def completed(environment: dict[str, str], words: str) -> list[str]:
    """Return what a shell would offer after these words."""
    asked = {"COMP_WORDS": f"billing {words}", "COMP_CWORD": str(len(words.split()))}
    done = billing(environment=environment | asked | {"_BILLING_COMPLETE": "bash_complete"})
    assert (done.code, done.stderr) == (0, "")
    return done.stdout.split()


def on_terminal(site: Site, width: int, *arguments: str, **variables: str) -> str:
    """Run a command on a terminal of a width, and return what it showed."""
    return shown_on_terminal(arguments, {**site.environment, "TERM": "xterm", **variables}, width)
