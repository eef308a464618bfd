"""docs/operations.md: what it tells to type exists, and what it names is there."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from billing_cli.cli.root import cli
from billing_cli.config.settings import load_settings
from tests.unit.systemd.units import UNITS

DOCS = Path(__file__).parents[3] / "docs"
PAGE = (DOCS / "operations.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)

# A command, up to where the shell takes over again.
COMMAND = re.compile(
    r"(?:^|/opt/billing/bin/)billing ((?!\"\$@)(?:[^'\n|>&;\"]|\"[^\"]*\")+)", re.MULTILINE
)
COMMANDS = sorted({one.strip() for block in BLOCKS for one in COMMAND.findall(block)})


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_page_exists_with_its_options(command: str) -> None:
    """The options are read before the help is shown, so one that is unknown would be told."""
    shown = CliRunner().invoke(cli, [*shlex.split(command), "--help"])
    assert shown.exit_code == 0, shown.output


def test_the_page_tells_how_to_use_the_commands() -> None:
    """The pattern above has found them."""
    assert {"check", "collect --dry-run", "status", "audit", "migrate --grant-to billing"} <= set(
        COMMANDS
    )


@pytest.mark.parametrize("block", BLOCKS, ids=[block.splitlines()[0] for block in BLOCKS])
def test_a_block_of_the_page_is_valid_shell(block: str) -> None:
    """It is meant to be copied."""
    judged = subprocess.run(
        ["/bin/sh", "-n"], input=block, capture_output=True, text=True, check=False
    )
    assert (judged.returncode, judged.stderr) == (0, "")


def test_the_configuration_of_the_page_is_right(tmp_path: Path) -> None:
    """With the credentials that the page tells systemd of."""
    (text,) = [
        one
        for block in BLOCKS
        for one in re.findall(r"billing\.toml <<'END'\n(.*?)END\n", block, re.DOTALL)
    ]
    path = tmp_path / "billing.toml"
    path.write_text(text, encoding="utf-8")
    for credential, place in re.findall(r"LoadCredential=(\S+):(\S+)", PAGE):
        assert place == f"/etc/billing/credentials/{credential}"
        (tmp_path / credential).write_text("secret", encoding="utf-8")
    (tmp_path / "database-url").write_text("postgresql://db/account", encoding="utf-8")
    settings = load_settings(str(path), {"CREDENTIALS_DIRECTORY": str(tmp_path)})
    assert [source.auth_mode for source in settings.sources] == ["mtls", "bearer"]


def test_the_units_of_the_page_are_those_that_are_there() -> None:
    """Each is explained, and none is named that does not exist."""
    named = set(re.findall(r"\b((?:on-)?billing-[a-z]+@?)(?:ID)?\.(service|timer)\b", PAGE))
    assert {f"{name}.{kind}" for name, kind in named} <= set(UNITS)
    assert {"billing-collect.timer", "billing-reconcile.timer"} <= {f"{a}.{b}" for a, b in named}


def test_the_links_of_the_page_lead_somewhere() -> None:
    """To a file beside it, and to a heading in it."""
    for file, heading in re.findall(r"\]\(([\w.-]*)(?:#([\w-]+))?\)", PAGE):
        text = (DOCS / file).read_text(encoding="utf-8") if file else PAGE
        headings = {
            re.sub(r"[^\w -]", "", line.lstrip("# ").lower()).strip().replace(" ", "-")
            for line in text.splitlines()
            if line.startswith("#")
        }
        assert not heading or heading in headings, (file, heading)
