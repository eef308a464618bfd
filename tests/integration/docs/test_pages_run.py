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

import psycopg
import pytest

from billing_cli.simulator.accounts import save_users
from billing_cli.simulator.exporter import accounts_of, live_fleet
from billing_cli.simulator.postgres import running_postgres
from billing_cli.simulator.server import serve
from tests.support.pages import BLOCK, ROOT, blocks, environment, here, run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from subprocess import CompletedProcess

    from billing_cli.simulator.postgres import EmbeddedPostgres

# What the units of `suspend` and `seal` start, and what the page has people do with the result.
SUSPEND = """
export BILLING_CONFIG=/etc/billing/billing.toml
BILLING_DATABASE_URL_REF=credential:suspend-database-url /opt/billing/bin/billing suspend --dry-run
"""
SEAL = """
export BILLING_CONFIG=/etc/billing/billing.toml
BILLING_DATABASE_URL_REF=credential:seal-database-url /opt/billing/bin/billing seal \\
  --key-ref credential:seal.key --to checkpoints
"""
VERIFY = """
cp /etc/billing/credentials/seal.key.pub .
/opt/billing/share/billing/bin/billing verify --checkpoint checkpoints --public-key seal.key.pub
"""
# A database that belongs to other services.
OWNER = """
su - postgres -c 'psql --set ON_ERROR_STOP=1 account' <<'END'
CREATE ROLE accounts LOGIN;
ALTER DATABASE account OWNER TO accounts;
ALTER DATABASE account SET application_name = 'theirs';
END
"""
OPERATIONS = (ROOT / "docs" / "operations.md").read_text("utf-8")
BACKUP, RESTORATION = BLOCK.findall(
    OPERATIONS[OPERATIONS.index("## Back up") : OPERATIONS.index("## Upgrade")]
)
# For those who have these roles.
GRANTS = " ".join(re.findall(r"`(--grant-[a-z]+-to billing_[a-z]+)`", OPERATIONS))
(ROLES,) = re.findall(r"`(su - postgres -c psql < globals\.sql)`", OPERATIONS)
# The last lines of the install page are for machines without systemd.
WRAPPER = "ln -sf -t /usr/local/bin /opt/billing/share/billing/bin/billing"


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


def test_metrics_are_set_up_where_no_unit_has_a_drop_in(directory: Path) -> None:
    """`init` makes none, and the page that has one for credentials is for those with tokens."""
    script = here(blocks("operations.md", "## Metrics", "## Alerts"), directory)
    done = run(script, directory, environment(directory, Path("/usr/bin"), ""))
    assert done.returncode == 0, done
    drop_in = directory / "etc/systemd/system/billing-.service.d/metrics.conf"
    assert f"ReadWritePaths={directory}/var/lib/billing-metrics\n" in drop_in.read_text("utf-8")
    assert (directory / "var/lib/billing-metrics").stat().st_mode & 0o7777 == 0o2775


def sockets_of(server: EmbeddedPostgres) -> str:
    """Return where the server is asked, quoted as in a URI."""
    found = re.search(r"host=([^&]+)", server.url())
    assert found is not None
    return found[1]


def ask_for_passwords(server: EmbeddedPostgres) -> None:
    """Let no role of billing in without one, as servers do that are asked over TCP."""
    rules = server.data / "pg_hba.conf"
    asking = "local all billing,billing_seal,billing_suspend scram-sha-256\n"
    rules.write_text(asking + rules.read_text("utf-8"), "utf-8")
    with psycopg.connect(server.url()) as connection:
        connection.execute("SELECT pg_reload_conf()")


def test_the_install_page_leads_to_a_first_run_and_away_again(directory: Path) -> None:
    """Below a directory in place of /, with stand-ins for package and unit manager.

    In between `suspend` and `seal` are set up, and a backup goes to a new server, each as its page
    says.
    """
    fleet = live_fleet(["jp-1"], 2, timedelta(minutes=90), datetime.now(UTC))
    with (
        running_postgres(directory / "server") as server,
        running_postgres(directory / "another") as another,
        serve(fleet) as exporters,
    ):
        ask_for_passwords(server)
        ask_for_passwords(another)
        variables = environment(directory, server.programs, sockets_of(server))

        def commands(script: str) -> CompletedProcess[str]:
            url = exporters.base_url("jp-1")
            return run(here(script, directory, url, sockets_of(server)), directory, variables)

        script = blocks("install.md", end="## Containers")
        # As the page says of a database without the shared tables.
        script = script.replace("migrate --grant-to", "migrate --create-shared-tables --grant-to")
        removal = blocks("install.md", "## Completion")
        done = commands(script)
        assert done.returncode == 0, done
        assert "collect: ok" in done.stdout
        assert "catch-up: ok" in done.stdout
        assert (directory / "etc/billing/billing.toml").stat().st_mode & 0o777 == 0o644
        secrets = directory / "etc/billing/credentials"
        assert (secrets / "database-url").stat().st_mode & 0o077 == 0o040

        set_up = blocks("operations.md", "## Suspending accounts", "## Sizing")
        set_up += blocks("sealing.md", "## Setting it up", "## Verifying")
        with psycopg.connect(server.url("account")) as connection:
            save_users(connection, accounts_of(2))
        charge = f"{WRAPPER}\nbilling catch-up\n"
        proved = commands(set_up + OWNER + charge + BACKUP + SUSPEND + SEAL + VERIFY)
        assert proved.returncode == 0, proved
        assert "suspend: ok" in proved.stdout
        for name in ("suspend-database-url", "seal-database-url"):
            assert (secrets / name).stat().st_mode & 0o077 == 0
        for name in ("globals.sql", "account.dump"):
            assert (directory / name).stat().st_mode & 0o077 == 0

        variables["SOCKETS"] = sockets_of(another).replace("%2F", "/")
        for file in secrets.glob("*database-url"):
            moved = file.read_text("utf-8").replace(sockets_of(server), sockets_of(another))
            file.write_text(moved, "utf-8")
        assert "--grant-suspend-to billing_suspend" in GRANTS
        restoration = RESTORATION.replace("--grant-to", f"{GRANTS} --grant-to")
        restored = commands(f"{ROLES}\n{restoration}{SUSPEND}")
        assert restored.returncode == 0, restored
        assert "catch-up: ok" in restored.stdout
        assert "audit: clean" in restored.stdout
        assert "role billing_seal may run billing seal" in restored.stdout
        with psycopg.connect(another.url("account")) as connection:
            assert connection.execute(
                "SELECT datdba::regrole::text, current_setting('application_name')"
                "  FROM pg_database WHERE datname = 'account'"
            ).fetchone() == ("accounts", "theirs")
        # The backup is older than the checkpoint.
        refused = commands(SEAL)
        assert refused.returncode == 1, refused
        assert "the newest checkpoint that is kept has" in refused.stderr
        sealed = commands("mv checkpoints checkpoints.old" + SEAL + VERIFY)
        assert sealed.returncode == 0, sealed

        removed = commands(removal)
        assert removed.returncode == 0, removed
        assert not (directory / "etc/billing").exists()
        assert not (directory / "opt/billing").exists()
