"""Output that nobody takes: what is committed is committed, and the exit code says so."""

from __future__ import annotations

import os
import subprocess
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import pytest

from billing_cli.cli.running import bug_report
from billing_cli.core.model import NodeIdentity
from tests.cli.command import PYTHON_PATH, TIMEOUT_SECONDS, Finished, command_line

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cli.command import Site

FULL = "/dev/full"


@pytest.mark.parametrize("arguments", [["collect"], ["collect", "--json"]])
def test_74_where_the_result_of_a_committed_run_can_not_be_written(
    site: Site, arguments: list[str]
) -> None:
    """Everything is stored, and whoever called must not take the run for a failed one."""
    site.has_two_nodes()
    finished = redirected(site, f'"$@" >{FULL}', *arguments)
    assert finished.code == 74
    assert "No space left on device" in finished.stderr.splitlines()[-1]
    assert "Traceback" not in finished.stderr
    site.world.check()
    assert site.billing("collect", "--json").result["written_minutes"] == 0


@pytest.mark.parametrize("json_option", [(), ("--json",)])
def test_74_where_the_reader_of_a_result_is_gone(site: Site, json_option: tuple[str, ...]) -> None:
    """Whoever asked for the result has not got it, and must not take it for said."""
    site.has_two_nodes()
    reader, writer = os.pipe()
    os.close(reader)
    with started(site, writer, "collect", *json_option) as run:
        assert "Broken pipe" in run.stderr.read().splitlines()[-1]
    assert run.returncode == 74
    assert site.billing("collect", "--json").result["written_minutes"] == 0


def test_a_signal_while_the_result_is_shown_undoes_nothing(site: Site) -> None:
    """No second object says that something was rolled back, and nothing waits for the reader."""
    site.has_two_nodes()
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    filled = 0
    with suppress(BlockingIOError):
        while True:
            filled += os.write(writer, b" " * 4096)
    os.set_blocking(writer, True)
    with started(site, writer, "--log-level", "info", "collect", "--json") as run:
        while "run finished" not in run.stderr.readline():
            assert run.poll() is None
        run.terminate()
        assert "SIGTERM" in run.stderr.read().splitlines()[-1]
    assert run.returncode == 74
    with os.fdopen(reader, "rb") as pipe:
        assert pipe.read() == b" " * filled
    assert site.billing("collect", "--json").result["written_minutes"] == 0


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(["collect", "--json", "--from-file", "-"], 1), (["init"], 2)],
)
def test_a_stdin_that_is_closed_is_an_empty_one(
    site: Site, arguments: list[str], code: int
) -> None:
    """No bug is reported where there is nothing to read."""
    site.has_two_nodes()
    finished = redirected(site, '"$@" <&-', *arguments)
    assert (finished.code, "bug" in finished.stderr) == (code, False), finished


def test_a_failed_run_keeps_its_code_where_nothing_can_be_written(site: Site) -> None:
    """What is more important goes first."""
    site.has_two_nodes()
    site.extra["DATABASE_URL"] = "postgresql://postgres@127.0.0.1:1/account"
    assert redirected(site, f'"$@" >{FULL}', "collect", "--json").code == 69


@pytest.mark.parametrize(
    "script",
    ['"$@" >&-', '"$@" 2>&-', f'"$@" 2>{FULL}', '"$@" <&- >&- 2>&-'],
)
def test_a_committed_run_ends_with_0_whoever_listens(site: Site, script: str) -> None:
    """Closed streams, and a log that can't be flushed, not even at the end."""
    site.has_two_nodes()
    assert redirected(site, script, "--log-level", "debug", "collect").code == 0
    assert site.billing("collect", "--json").result["written_minutes"] == 0


def test_what_the_encoding_of_stdout_lacks_is_escaped(site: Site) -> None:
    """An error that quotes a Japanese name does not make a committed run end as one that failed."""
    site.has_two_nodes()
    site.world.running["jp-1"].identity = NodeIdentity("prod", "東京")
    site.extra["PYTHONIOENCODING"] = "latin-1"
    finished = redirected(site, '"$@"', "collect")
    assert (finished.code, "\\u6771\\u4eac" in finished.stdout) == (3, True), finished


@pytest.mark.parametrize("arguments", [["--log-level=debug"], ["--log-level", "DEBUG"]])
def test_a_bug_has_a_traceback_at_debug_level(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    """However the option is written, and also before the configuration was read."""
    monkeypatch.setattr("sys.argv", ["billing", *arguments, "collect"])
    with pytest.raises(ZeroDivisionError) as caught:
        raise ZeroDivisionError
    report = bug_report(caught.value)
    assert report.startswith("Traceback")


@contextmanager
def started(site: Site, stdout: int, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Start the command with a descriptor as its stdout, which is closed here; wait for its end."""
    site.world.fleet.present = site.present
    with subprocess.Popen(  # noqa: S603 - our own command
        command_line(*arguments),
        env={**PYTHON_PATH, **site.environment},
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
    ) as run:
        os.close(stdout)
        try:
            yield run
        except BaseException:
            run.kill()
            raise


def redirected(site: Site, script: str, *arguments: str) -> Finished:
    """Run the command below a shell that redirects its streams."""
    site.world.fleet.present = site.present
    shell = ["/bin/sh", "-c", script, "sh"]
    finished = subprocess.run(  # noqa: S603 - our own command
        [*shell, *command_line(*arguments)],
        env={"PATH": os.environ["PATH"], **PYTHON_PATH, **site.environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )
    return Finished(finished.returncode, finished.stdout.decode(), finished.stderr.decode())
