"""`billing init` writes a configuration that works, and touches nothing that exists."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import tomllib
from typing import TYPE_CHECKING

import pytest

from tests.cli.command import PYTHON_PATH, Finished, billing, command_line

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.command import Site

SECRETS = {"database-url", "jp-1-token"}


def init(directory: Path, *arguments: str, **environment: str) -> Finished:
    """Run `billing init` for a source, without a terminal."""
    return billing(
        *("init", "--directory", str(directory), "--source", "jp-1=https://127.0.0.1:9"),
        *arguments,
        environment={"DATABASE_URL": "postgresql://u:s3cret@127.0.0.1:1/x"} | environment,
    )


def test_what_it_writes_collects_and_charges(site: Site, tmp_path: Path) -> None:
    """The three commands that it prints work, without any other setting."""
    site.has_two_nodes()
    sources = [
        source["source_id"] + "=" + source["base_url"] for source in site.world.running.sources()
    ]
    database_url = site.environment["DATABASE_URL"]
    done = billing(
        *("init", "--directory", str(tmp_path), "--price-per-gib", "0.05", "--json"),
        *(word for source in sources for word in ("--source", source)),
        environment={"DATABASE_URL": database_url},
    )
    assert done.code == 0, done
    assert done.result["check"]["status"] == "ok"
    migrate, dry_run, collect = done.result["next"]
    assert (migrate.split()[-1], dry_run.split()[-1]) == ("migrate", "--dry-run")
    for line in (dry_run, collect):
        assert billing(*line.split()[1:], environment={}).code == 0, line
    billed = site.world.rows("SELECT sum(amount_delta) FROM public.billing_ledger")
    assert billed[0][0] < 0


def test_a_wrong_connection_string_is_that_of_the_option(tmp_path: Path) -> None:
    """Not of the files that were tried and are gone."""
    done = init(tmp_path, "--price", "1", "--database-url", "nonsense")
    assert (done.code, done.stderr) == (2, "Error: --database-url: must be a postgresql:// URL\n")


def test_secrets_are_files_for_their_owner_alone(tmp_path: Path) -> None:
    """The configuration refers to them, and holds none."""
    (tmp_path / "given").write_text("t0ken\n")
    target = tmp_path / "billing"
    done = init(target, "--price", "1e-9", "--token-file", f"jp-1={tmp_path}/given")
    assert done.code == 0, done
    directory = target / "credentials"
    assert {path.name for path in directory.iterdir()} == SECRETS
    assert directory.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in directory.iterdir()} == {0o600}
    text = (target / "billing.toml").read_text("utf-8")
    assert not {"s3cret", "t0ken"} & {*text.split()} | {*done.stdout.split()} & {"s3cret", "t0ken"}
    assert tomllib.loads(text)["sources"][0]["credential_ref"] == "credential:jp-1-token"
    shown = billing("--config", str(target / "billing.toml"), "config", "show", environment={})
    assert "s3cret" not in shown.stdout + shown.stderr
    assert shown.code == 0, shown


@pytest.mark.parametrize("existing", ["billing.toml", "credentials/database-url"])
def test_nothing_is_overwritten(tmp_path: Path, existing: str) -> None:
    """Neither a configuration nor a secret; and nothing else is written then."""
    (tmp_path / "credentials").mkdir()
    (tmp_path / existing).write_text("mine")
    done = init(tmp_path, "--price", "1")
    assert done.code == 78
    assert f"{existing} exists, and init overwrites nothing" in done.stderr
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [existing[-12:]]
    assert (tmp_path / existing).read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ((), "--price is missing, and there is no terminal to ask at"),
        (("--price", "cheap"), "'cheap' is not a price, such as 0.05"),
        (("--price", "1", "--price-per-gib", "1"), "exclude each other"),
        (("--price", "1", "--source", "us-1"), "--source needs ID=URL"),
        (("--price", "1", "--source", "us-1=http://10.0.0.1"), "http is for loopback hosts only"),
        (("--price", "1", "--token-file", "fra-1=/etc/hostname"), "there is no --source"),
        (("--price", "1", "--token-file", "jp-1=/nowhere"), "No such file"),
        (("--price", "1", "--token-file", "jp-1=/dev/null"), "--token-file /dev/null: empty"),
    ],
)
def test_wrong_answers_write_nothing(
    tmp_path: Path, arguments: tuple[str, ...], reason: str
) -> None:
    """One line says what is wrong."""
    done = init(tmp_path / "new", *arguments)
    assert done.code == 2
    assert reason in done.stderr
    assert not (tmp_path / "new").exists()


def test_on_a_terminal_it_asks_for_what_is_missing(tmp_path: Path) -> None:
    """Database, sources, price and currency; an empty name ends the list of sources."""
    answers = ["postgresql://u@127.0.0.1:1/x", "jp-1", "https://127.0.0.1:9", "", "", "0.05", ""]
    ours, theirs = pty.openpty()
    started = subprocess.Popen(  # noqa: S603 - our own command
        command_line("init", "--directory", str(tmp_path)),
        env=PYTHON_PATH,
        stdin=theirs,
        stderr=theirs,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    os.close(theirs)
    for answer in answers:
        shown = b""
        while not shown.endswith(b": "):
            shown += os.read(ours, 1024)
        os.write(ours, f"{answer}\n".encode())
    stdout, _ = started.communicate()
    os.close(ours)
    assert started.returncode == 0
    assert b"next:\n  billing --config" in stdout
    written = tomllib.loads((tmp_path / "billing.toml").read_text("utf-8"))
    assert f"{written['price_per_byte'] * 2**30:.2f}" == "0.05"
    assert json.dumps(written["sources"]) == json.dumps(
        [{"source_id": "jp-1", "base_url": "https://127.0.0.1:9"}]
    )
