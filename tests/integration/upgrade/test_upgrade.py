"""From the first edition's wheel to this one's, as the manual says, on a fleet that goes on."""

from __future__ import annotations

import re
import shutil
import tempfile
import tomllib
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import psycopg
import pytest

from billing_cli.core.times import format_rfc3339, minute_of
from billing_cli.simulator.accounts import save_users
from billing_cli.simulator.books import read_buckets
from billing_cli.simulator.invariants import compare_with_oracle, violations
from billing_cli.simulator.oracle import Oracle
from billing_cli.simulator.postgres import running_postgres
from billing_cli.simulator.server import serve
from billing_cli.simulator.traffic import Fleet
from tests.integration.upgrade.wheels import (
    ROOT,
    first_edition,
    has_history,
    make_environment,
    this_tree,
    version_of,
)
from tests.support.pages import blocks, environment, here, run

if TYPE_CHECKING:
    from collections.abc import Iterator

CONFIGURATION = """database_url_ref = "credential:database-url"
price_per_byte = 0.000001
[[sources]]
source_id = "jp-1"
base_url = "{url}"
expected_env = "prod"
expected_node_id = "jp-1.svc.plus"
"""


class Machine(NamedTuple):
    """A directory in place of /, with a database and an exporter; `url` is the owner's."""

    directory: Path
    url: str
    environment: dict[str, str]

    def run(self, script: str) -> str:
        """Run commands as they stand in the manual; the first error ends them."""
        done = run(here(script, self.directory), self.directory, self.environment)
        assert done.returncode == 0, done
        return done.stdout


@contextmanager
def machine(fleet: Fleet) -> Iterator[Machine]:
    """Run a server with the job role, and the exporter of a fleet; billing is configured."""
    directory = Path(tempfile.mkdtemp(prefix="billing-upgrade-"))
    directory.chmod(0o755)
    try:
        with (
            running_postgres(directory / "server", durable=False) as server,
            serve(fleet) as fleets,
        ):
            host = re.search(r"host=([^&]+)", server.url())
            assert host is not None
            with psycopg.connect(server.url(), autocommit=True) as connection:
                connection.execute("CREATE ROLE billing LOGIN")
                connection.execute("CREATE DATABASE account")
            credentials = directory / "etc" / "billing" / "credentials"
            credentials.mkdir(parents=True)
            (credentials / "database-url").write_text(
                f"postgresql://billing@/account?host={host[1]}"
            )
            configuration = directory / "etc" / "billing" / "billing.toml"
            configuration.write_text(CONFIGURATION.format(url=fleets.base_url("jp-1")))
            variables = {
                **environment(directory, server.programs, host[1]),
                "PROGRAM": f"{directory}/opt/billing/bin/billing",
                "BILLING_CONFIG": str(configuration),
                # As systemd names it.
                "CREDENTIALS_DIRECTORY": str(credentials),
            }
            yield Machine(directory, server.url("account"), variables)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@pytest.mark.skipif(not has_history(), reason="the history of 0.1.0 is not in this checkout")
def test_an_upgrade_from_0_1_0_charges_every_byte_once() -> None:
    """Also what waited for its account, and the minutes that nobody collected meanwhile."""
    # The last snapshot of a minute comes within it: none may lie ahead of the clock.
    present = minute_of(datetime.now(UTC)) - timedelta(minutes=2)
    fleet = Fleet(start=present - timedelta(minutes=90))
    *users, late = [fleet.add_user() for _ in range(5)]
    node = fleet.add_node("jp-1")
    for user in (*users, late):
        node.add_stream(user.uuid, "xhttp")
        node.add_stream(user.proxy_uuid, "tcp")
    fleet.run(present - timedelta(minutes=30))
    since = f"--since {format_rfc3339(fleet.start)}"

    with machine(fleet) as host:
        opt = host.directory / "opt" / "billing"
        make_environment(opt, first_edition(host.directory))
        assert "version 0.1.0" in host.run("/opt/billing/bin/billing --version")
        host.run("cp /opt/billing/share/billing/systemd/* /etc/systemd/system/")
        host.run("systemctl enable --now billing-collect.timer billing-reconcile.timer")
        host.run("su - postgres -c 'DATABASE_URL=postgresql:///account "
                 "/opt/billing/bin/billing migrate --grant-to billing'")  # fmt: skip
        with psycopg.connect(host.url, autocommit=True) as connection:
            save_users(connection, users)
            host.run(f"/opt/billing/bin/billing catch-up {since}")
            charged = {bucket[0]: bucket[1] for bucket in read_buckets(connection)}
            assert len(charged) > len(users) * 30

            fleet.run(present)
            this_tree(host.directory)
            host.run(blocks("operations.md", "## Upgrade and roll back", "## Several hosts"))
            assert "version 0.1.0" not in host.run("billing --version")
            # Backups are root's alone; the program is not: the jobs run as another user.
            assert (host.directory / "before-upgrade.dump").stat().st_mode & 0o077 == 0
            assert all(path.stat().st_mode & 0o004 for path in opt.rglob("*.py"))
            save_users(connection, [late])
            host.run("billing catch-up")

            assert compare_with_oracle(connection, Oracle(fleet)) == []
            assert violations(connection) == []
            kept = {bucket[0]: bucket[1] for bucket in read_buckets(connection)}
            assert charged.items() <= kept.items()
            host.run(f"billing audit --full; billing reconcile {since}; billing catch-up")
            # What waited with 0.1.0 was charged in one minute: reconcile moves it to its own ones.
            assert compare_with_oracle(connection, Oracle(fleet)) == []
            assert violations(connection) == []
            now = {bucket[0]: bucket[1] for bucket in read_buckets(connection)}
            moved = {bucket.account_uuid for bucket, _ in kept.items() ^ now.items()}
            assert moved == {late.uuid}


def test_a_tree_without_history_builds_the_next_release(tmp_path: Path) -> None:
    """The version is the fallback, and the program, its wheel and its package agree on it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    wheel = this_tree(tmp_path)
    assert version_of(wheel) == project["tool"]["hatch"]["version"]["fallback-version"]
    make_environment(tmp_path / "opt", wheel)
    asked = "from importlib.metadata import version; print(version('billing'))"
    done = run(
        f'opt/bin/billing --version; opt/bin/python -c "{asked}"',
        tmp_path,
        {"PATH": "/usr/bin:/bin"},
    )
    assert done.stdout.split() == ["billing,", "version", *[version_of(wheel)] * 2]
    assert (tmp_path / "opt/share/billing/bin/billing").stat().st_mode & 0o111
    assert (tmp_path / "opt/share/billing/systemd/billing-collect.service").exists()
