"""What the units promise: in time, with the right outcome, with the secrets where they belong."""

from __future__ import annotations

import signal
import subprocess
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from billing_cli.cli.root import cli
from billing_cli.config.settings import Settings
from billing_cli.core.times import parse_rfc3339
from billing_cli.errors import EXIT_BUSY, EXIT_PARTIAL
from tests.unit.systemd.units import (
    DIRECTORY,
    HOOK,
    JOBS,
    PROGRAM,
    SERVICES,
    UNITS,
    setting,
    settings,
    shell_script,
)

if TYPE_CHECKING:
    from pathlib import Path

# What may differ from billing-collect.service; all else, the whole sandbox above all, is the same.
OWN_SETTINGS = {
    # Their exit code 3 is a violation.
    "billing-audit.service": {"Description", "ExecStart", "SuccessExitStatus", "TimeoutStartSec"},
    "billing-audit-full.service": {
        "Description",
        "ExecStart",
        "SuccessExitStatus",
        "TimeoutStartSec",
    },
    "billing-collect@.service": {"Description", "ExecStart"},
    "billing-reconcile.service": {"Description", "ExecStart", "TimeoutStartSec"},
    # It connects as a role of its own.
    "billing-suspend.service": {
        "Description",
        "ExecStart",
        "TimeoutStartSec",
        "LoadCredential",
        "Environment",
        "UnsetEnvironment",
    },
    # So does this; the checkpoints are its own, too.
    "billing-seal.service": {
        "Description",
        "Documentation",
        "ExecStart",
        "TimeoutStartSec",
        "LoadCredential",
        "Environment",
        "UnsetEnvironment",
        "StateDirectory",
    },
}


def test_all_units_are_there() -> None:
    """Each job has its service; those that recur have a timer; failures have a hook."""
    assert UNITS == [
        "billing-audit-full.service",
        "billing-audit-full.timer",
        "billing-audit.service",
        "billing-audit.timer",
        "billing-collect.service",
        "billing-collect.timer",
        "billing-collect@.service",
        "billing-reconcile.service",
        "billing-reconcile.timer",
        "billing-seal.service",
        "billing-seal.timer",
        "billing-suspend.service",
        "billing-suspend.timer",
        HOOK,
    ]


@pytest.mark.parametrize("name", OWN_SETTINGS)
def test_the_jobs_share_one_sandbox(name: str) -> None:
    """Three files, so that each can be read alone, and one list of settings."""
    expected, found = settings("billing-collect.service"), settings(name)
    differing = {
        key for key in expected.keys() | found.keys() if expected.get(key) != found.get(key)
    }
    assert differing == OWN_SETTINGS[name]


@pytest.mark.parametrize("name", JOBS)
def test_busy_and_partial_are_no_failure(name: str) -> None:
    """An outage is: 69 and all other codes fail the unit, which starts the hook.

    So does 3 of an audit: without Prometheus nothing else says that there are violations.
    """
    partial = [] if name.startswith("billing-audit") else [EXIT_PARTIAL]
    codes = [*partial, EXIT_BUSY, 128 + signal.SIGTERM]
    assert setting(name, "SuccessExitStatus") == " ".join(map(str, codes))
    assert setting(name, "OnFailure") == HOOK.replace("@", "@%N")
    assert setting(name, "Type") == "oneshot"


@pytest.mark.parametrize("name", ["billing-collect.service", "billing-collect@.service"])
def test_a_run_ends_before_the_next_is_due(name: str) -> None:
    """Even one that is stopped; one that hits its own deadline has as long left to commit."""
    start, stop = (int(setting(name, f"Timeout{what}Sec")) for what in ("Start", "Stop"))
    assert start + stop < 60
    assert Settings().run_deadline_seconds <= start / 2


@pytest.mark.parametrize("name", JOBS)
def test_the_connection_string_is_a_credential(name: str) -> None:
    """It is loaded under the name by which the program asks for it."""
    credential, _, path = settings(name)["LoadCredential"][-1].partition(":")
    assert setting(name, "Environment") == f"BILLING_DATABASE_URL_REF=credential:{credential}"
    assert path == f"/etc/billing/credentials/{credential}"


def test_the_hook_needs_no_credential() -> None:
    """A credential that is missing must not silence the alarm about it."""
    assert "LoadCredential" not in settings(HOOK)
    # Drop-ins in billing-.service.d hold for every unit whose name begins with this.
    assert not HOOK.startswith("billing-")


@pytest.mark.parametrize("name", SERVICES)
def test_each_relaxation_has_its_reason(name: str) -> None:
    """What a sandbox could still close is named, with why it is not."""
    text = (DIRECTORY / name).read_text(encoding="utf-8")
    reasons = text.partition("# What is left open, and why:")[2]
    for relaxation in (
        "PrivateNetwork=",
        "RestrictAddressFamilies=",
        "IPAddressAllow=",
        "RootDirec",
    ):
        assert relaxation in reasons
    assert "@resources" in setting_list(name, "SystemCallFilter")


@pytest.mark.parametrize(
    "name", ["billing-collect.service", "billing-collect@.service", "billing-suspend.service"]
)
def test_the_command_lines_are_understood(name: str) -> None:
    """What the unit starts is a command with options that exist."""
    program, *arguments = setting(name, "ExecStart").split()
    assert program == PROGRAM
    assert CliRunner().invoke(cli, [*arguments, "--help"]).exit_code == 0


def test_reconcile_compares_two_hours(tmp_path: Path) -> None:
    """It is started each hour, so that each minute is compared twice."""
    stub = executable(tmp_path / "billing", 'printf "%s\\n" "$@"')
    before = datetime.now(UTC).replace(microsecond=0)
    printed = run_shell(shell_script("billing-reconcile.service").replace(PROGRAM, str(stub)))
    command, option, since = printed.split()
    assert (command, option) == ("reconcile", "--since")
    assert before <= parse_rfc3339(since) + timedelta(hours=2) <= datetime.now(UTC)


def test_the_hook_speaks_up_and_calls_the_operators_script(tmp_path: Path) -> None:
    """One critical line for the journal, then the script, which is told what failed and how."""
    script = tmp_path / "on-failure"
    hook = awake(shell_script(HOOK)).replace("/etc/billing/on-failure", str(script))
    outcome = {"MONITOR_SERVICE_RESULT": "exit-code", "MONITOR_EXIT_STATUS": "69"}
    line = (
        "<2>billing-collect has failed (exit-code, exit status 69): journalctl -u billing-collect\n"
    )
    assert run_shell(hook, "on-failure", "billing-collect", **outcome) == line
    executable(script, 'echo "mail: $1 $MONITOR_EXIT_STATUS"')
    assert run_shell(hook, "on-failure", "billing-collect", **outcome) == (
        f"{line}mail: billing-collect 69\n"
    )


def test_the_hook_tells_the_reason_in_plain_text(tmp_path: Path) -> None:
    """The last error of the run that failed: in the hook's own line, and on the script's input."""
    journal(tmp_path, f1="Error: first\nError: database: connection refused\n{}", f2="Error: later")
    script = executable(tmp_path / "notify", 'echo "mail about $1: $(cat)"')
    hook = awake(shell_script(HOOK)).replace("/etc/billing/on-failure", str(script))
    told = run_shell(
        hook,
        "on-failure",
        "billing-collect",
        PATH=f"{tmp_path}:/usr/bin:/bin",
        MONITOR_INVOCATION_ID="f1",
    )
    assert told.splitlines() == [
        (
            "<2>billing-collect has failed (unknown, exit status unknown): "
            "Error: database: connection refused"
        ),
        "mail about billing-collect: Error: database: connection refused",
    ]


@pytest.mark.parametrize("outcome", [{}, {"MONITOR_INVOCATION_ID": "f2"}])
def test_the_hook_does_not_show_the_reason_of_an_earlier_run(
    tmp_path: Path, outcome: dict[str, str]
) -> None:
    """As where a run was killed, which writes no error; or where systemd does not name the run."""
    journal(tmp_path, f1="Error: earlier", f2='{"event": "this run"}')
    hook = awake(shell_script(HOOK)).replace("/etc/billing/on-failure", "/nowhere")
    path = f"{tmp_path}:/usr/bin:/bin"
    told = run_shell(hook, "on-failure", "billing-collect", PATH=path, **outcome)
    assert told.endswith(": journalctl -u billing-collect\n")


def test_the_hook_speaks_up_without_knowing_the_outcome() -> None:
    """Older systemd does not pass it on."""
    hook = awake(shell_script(HOOK)).replace("/etc/billing/on-failure", "/nowhere")
    assert "x has failed (unknown, exit status unknown)" in run_shell(hook, "on-failure", "x")


def test_a_script_that_fails_or_hangs_is_told_and_does_not_end_the_silence(tmp_path: Path) -> None:
    """The hook sleeps in any case, so that an outage does not call it each minute."""
    hook = shell_script(HOOK)
    assert hook.endswith("; exec sleep 900")
    assert "timeout 60 /etc/billing/on-failure" in hook
    script = executable(tmp_path / "on-failure", "exit 7")
    hook = hook.replace("/etc/billing/on-failure", str(script)).replace("sleep 900", "echo asleep")
    assert run_shell(hook, "on-failure", "x").splitlines()[1:] == [
        f"<2>{script} has failed (exit status 7): nobody was notified of x",
        "asleep",
    ]


def journal(directory: Path, **runs: str) -> Path:
    """Write a `journalctl` that shows what the runs of units wrote, by their invocation.

    As the real one, it shows all lines where none is asked for, and ignores other options here.
    """
    lines = directory / "journal"
    lines.mkdir()
    for invocation, text in runs.items():
        (lines / invocation).write_text(f"{text}\n", encoding="utf-8")
    return executable(
        directory / "journalctl",
        f"cd {lines}\nname='*'\n"
        "for word; do case $word in _SYSTEMD_INVOCATION_ID=*) name=${word#*=} ;; esac; done\n"
        "cat $name",
    )


def awake(script: str) -> str:
    """Return the hook's script without the sleep at its end."""
    return script.replace("exec sleep 900", ":")


def setting_list(name: str, key: str) -> str:
    """Return all values of a setting together."""
    return " ".join(settings(name)[key])


def executable(path: Path, script: str) -> Path:
    """Return the path of a shell script that may be executed."""
    path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


def run_shell(script: str, *arguments: str, **environment: str) -> str:
    """Run a script as the unit does, and return what it printed."""
    return subprocess.run(  # noqa: S603 - the unit's own script
        ["/bin/sh", "-c", script, *arguments],
        env={"PATH": "/usr/bin:/bin", **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
