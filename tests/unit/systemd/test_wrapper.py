"""The wrapper for people runs billing in the sandbox of the installed unit.

What it hands to systemd-run is compared, with a stand-in that prints it: no systemd runs here.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click
import pytest

from billing_cli.cli.root import cli
from tests.unit.systemd.units import DIRECTORY, PROGRAM, settings

WRAPPER = Path(__file__).parents[3] / "share" / "billing" / "billing"
PROGRAMS = Path(sys.executable).parent
DROP_IN = """[Unit]
Documentation=man:billing(1)
[Service]
# An operator's
LoadCredential=us-1-token:/etc/billing/credentials/us-1-token
ReadWritePaths=/var/lib/billing-metrics \\
  /srv/more
"""
ABOUT_THE_JOB = {
    "Type", "ExecStart", "TimeoutStartSec", "TimeoutStopSec", "SuccessExitStatus",
    "StandardOutput", "StandardError",
}  # fmt: skip
VALUES = {"--config": "seal.toml", "--log-level": "debug", "--log-format": "json"}


@pytest.fixture
def stand_ins(tmp_path: Path) -> Path:
    """Return a directory with the units, a drop-in, and stand-ins for systemd's programs."""
    programs = {
        "systemctl": f'cat "{DIRECTORY}/$2" || exit 1; printf "\\n# {tmp_path}/drop-in\\n"\n'
        f'cat "{tmp_path}/drop-in"',
        "systemd-run": 'printf "%s\\n" "$@"; exit "${OUTCOME:-0}"',
    }
    for name, script in programs.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n", "utf-8")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "drop-in").write_text(DROP_IN, "utf-8")
    return tmp_path


def composed(
    stand_ins: Path, *arguments: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run the wrapper."""
    return subprocess.run(  # noqa: S603 - our own script
        [str(WRAPPER), *arguments],
        cwd=stand_ins,
        env={"PATH": f"{stand_ins}:/usr/bin:/bin", **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("command", "unit"),
    [
        ("status", "billing-collect.service"),
        ("seal", "billing-seal.service"),
        ("suspend", "billing-suspend.service"),
    ],
)
def test_a_command_gets_every_setting_of_its_unit(stand_ins: Path, command: str, unit: str) -> None:
    """In the unit's order, then those of drop-ins; but not what is about the job."""
    lines = composed(stand_ins, command, "--json").stdout.splitlines()
    found = [line.removeprefix("--property=") for line in lines if line.startswith("--property=")]
    service = (DIRECTORY / unit).read_text("utf-8").partition("[Service]")[2]
    expected = [
        line
        for line in service.splitlines()
        if line and line[0] != "#" and line.partition("=")[0] not in ABOUT_THE_JOB
    ]
    assert found == [
        *expected,
        "LoadCredential=us-1-token:/etc/billing/credentials/us-1-token",
        "ReadWritePaths=/var/lib/billing-metrics    /srv/more",
        f"WorkingDirectory=-{stand_ins}",
    ]
    assert {"EnvironmentFile=-/etc/billing/billing.env", "DynamicUser=yes"} < set(found)
    assert settings(unit)["IPAddressDeny"] == ["link-local multicast"]
    assert lines[-4:] == ["--", PROGRAM, command, "--json"]


@pytest.mark.parametrize("command", ["seal", "suspend"])
def test_options_before_the_command_do_not_change_its_unit(stand_ins: Path, command: str) -> None:
    """Or else it would connect as the role of the jobs."""
    apart = [part for option in VALUES.items() for part in option]
    joined = [f"{option}={value}" for option, value in VALUES.items()]
    credential = f"LoadCredential={command}-database-url:"
    for options in (apart, joined, ["--"]):
        assert credential in composed(stand_ins, *options, command).stdout, options
    # Only the first word is the command.
    assert credential not in composed(stand_ins, "status", command).stdout


def test_the_wrapper_knows_which_options_take_a_value() -> None:
    """Those of `billing` itself: the word after them is no command."""
    options = [one for one in cli.params if isinstance(one, click.Option)]
    taking = {name for one in options if not one.is_flag for name in one.opts}
    assert taking == set(VALUES)
    assert f"    {' | '.join(VALUES)}) " in WRAPPER.read_text("utf-8")


def test_the_command_runs_where_the_shell_is(stand_ins: Path) -> None:
    """So that files are found by relative names; where the sandbox hides it, it runs in /."""
    lines = composed(stand_ins, "verify", "--statement", "2026-11.html").stdout.splitlines()
    assert [one for one in lines if "WorkingDirectory" in one] == [
        f"--property=WorkingDirectory=-{stand_ins}"
    ]
    assert lines.index("--") > lines.index(f"--property=WorkingDirectory=-{stand_ins}")


def test_the_exit_code_and_arguments_pass_through(stand_ins: Path) -> None:
    """Also arguments with blanks, and those that look like options of systemd-run."""
    done = composed(stand_ins, "rerate", "--reason", "a  price", "--pty", OUTCOME="3")
    assert done.returncode == 3
    assert done.stdout.endswith(f"--\n{PROGRAM}\nrerate\n--reason\na  price\n--pty\n")


def test_of_the_shells_variables_only_those_of_the_terminal_get_in(stand_ins: Path) -> None:
    """What a unit is given in the open everybody can read: no secret may get there."""
    secrets = {"DATABASE_URL": "postgresql://secret", "BILLING_PING_URL": "https://secret"}
    done = composed(stand_ins, "status", NO_COLOR="", COLUMNS="80", **secrets)
    handed = [line for line in done.stdout.splitlines() if line.startswith("--setenv")]
    assert handed == ["--setenv=COLUMNS=80", "--setenv=NO_COLOR="]
    assert "secret" not in done.stdout


def test_without_the_unit_nothing_runs(stand_ins: Path) -> None:
    """No unit, no sandbox: the wrapper says how to install it, and ends with 78."""
    (stand_ins / "systemctl").write_text("#!/bin/sh\nexit 1\n", "utf-8")
    done = composed(stand_ins, "status")
    assert (done.returncode, done.stdout) == (78, "")
    assert done.stderr.startswith("Error: billing-collect.service is not installed")


def test_shellcheck_finds_nothing() -> None:
    """Neither in the wrapper nor in the script that checks a change."""
    checked = subprocess.run(  # noqa: S603 - our own scripts
        [PROGRAMS / "shellcheck", WRAPPER, DIRECTORY.parent / ".ci" / "run"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (checked.returncode, checked.stdout) == (0, "")
