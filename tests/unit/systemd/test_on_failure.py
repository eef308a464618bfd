"""The scripts of the manual that tell of a failure, called by the hook as the page sets them up."""

from __future__ import annotations

import json
import re
import shutil
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.support.pages import BLOCK, ROOT, environment, here, run
from tests.unit.systemd.test_units import awake, executable, journal, run_shell
from tests.unit.systemd.units import HOOK, shell_script

if TYPE_CHECKING:
    from pathlib import Path

PAGE = (ROOT / "docs" / "operations.md").read_text("utf-8")
MAIL, CHAT = BLOCK.findall(PAGE.partition("## Notifications")[2].partition("\n## ")[0])
REASON = 'Error: source "jp-1": refused'


class Told(NamedTuple):
    """What the hook printed after its first line, and what `curl` was called with and read."""

    lines: list[str]
    arguments: list[str]
    sent: str


def tell(directory: Path, block: str, **variables: str) -> Told:
    """Set a script up, and let the hook call it as systemd would."""
    (directory / "etc" / "billing" / "credentials").mkdir(parents=True)
    machine = environment(directory, directory, "")
    journal(directory / "stand-ins", f1="Error: of an earlier run", f2=REASON)
    executable(
        directory / "stand-ins" / "curl",
        'printf "%s\\n" "$@" > "$HERE/arguments"; cat > "$HERE/sent"; exit "${OUTCOME:-0}"',
    )
    done = run(here(block, directory), directory, machine)
    assert done.returncode == 0, done
    told = run_shell(
        here(awake(shell_script(HOOK)), directory),
        "on-failure",
        "billing-collect",
        CREDENTIALS_DIRECTORY=str(loaded(directory)),
        MONITOR_INVOCATION_ID="f2",
        **machine,
        **variables,
    )
    arguments = (directory / "arguments").read_text("utf-8").splitlines()
    return Told(told.splitlines()[1:], arguments, (directory / "sent").read_text("utf-8"))


def loaded(directory: Path) -> Path:
    """Copy the credentials that the hook's drop-ins name, as systemd does: it sees no others."""
    credentials = directory / "run"
    credentials.mkdir()
    for drop_in in (directory / "etc" / "systemd" / "system" / f"{HOOK}.d").glob("*.conf"):
        for name, path in re.findall(r"LoadCredential=(.+?):(.+)", drop_in.read_text("utf-8")):
            shutil.copy(path, credentials / name)
    return credentials


def test_a_mail_is_sent_by_smtp(tmp_path: Path) -> None:
    """No program gets rights by its mode in the sandbox, and no spool can be written there."""
    told = tell(tmp_path, MAIL)
    assert told.lines == []
    assert told.arguments[-1] == "smtp://127.0.0.1"
    # Servers refuse lines that end with a bare line feed.
    assert "--crlf" in told.arguments
    head, _, body = told.sent.partition("\n\n")
    assert [line.partition(": ")[0] for line in head.splitlines()] == ["From", "To", "Subject"]
    assert "\nSubject: billing-collect failed on " in head
    assert body == f"{REASON}\n"


@pytest.mark.skipif(shutil.which("jq") is None, reason="jq is not installed")
def test_a_chat_is_told_at_an_address_that_stays_secret(tmp_path: Path) -> None:
    """It is in a file of root's, of which the unit sees a copy, and in no command line."""
    told = tell(tmp_path, CHAT)
    assert told.lines == []
    assert json.loads(told.sent) == {"text": f"billing-collect failed: {REASON}"}
    secret = tmp_path / "etc" / "billing" / "credentials" / "chat-url"
    assert secret.stat().st_mode & 0o077 == 0
    config = told.arguments[told.arguments.index("--config") + 1]
    assert config == str(tmp_path / "run" / "chat-url")
    assert (tmp_path / "run" / "chat-url").read_text("utf-8").startswith('url = "https://')
    assert not any("https://" in argument for argument in told.arguments)
    # An answer such as 404 is a failure too.
    assert "--fail" in told.arguments


def test_a_secret_that_is_missing_does_not_silence_the_hook() -> None:
    """A credential that can't be loaded has a value all the same, or the unit would not start."""
    assert re.findall(r"LoadCredential=(.+?):", CHAT) == re.findall(r"SetCredential=(.+?):", CHAT)


def test_the_journal_says_that_nobody_was_told(tmp_path: Path) -> None:
    """As where the server can't be reached, which is exit status 7 of curl."""
    told = tell(tmp_path, MAIL, OUTCOME="7")
    script = tmp_path / "etc" / "billing" / "on-failure"
    assert told.lines == [
        f"<2>{script} has failed (exit status 7): nobody was notified of billing-collect"
    ]
