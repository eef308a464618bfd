"""Runs `billing` in forks of a process that has imported it: in 20 ms, not half a second.

A fork has the arguments, environment, directory and standard streams that a test gives it, and
ends as the program ends. What is about starting itself, closed streams or signals starts a
program of its own.
"""

from __future__ import annotations

import multiprocessing
import os
import pkgutil
import pty
import sys
import tempfile
import termios
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import billing_cli
from billing_cli.__main__ import main

if TYPE_CHECKING:
    from collections.abc import Mapping

TIMEOUT_SECONDS = 60.0
"""How long a test waits for a command; far more than it ever takes."""

STREAMS = ("stdin", "stdout", "stderr")

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    [
        *(
            module.name
            for module in pkgutil.walk_packages(billing_cli.__path__, "billing_cli.")
            if "simulator" not in module.name
        ),
        "requests",
        "rich.table",
        __name__,
    ]
)


class Ended(NamedTuple):
    """How a command ended, and what it wrote."""

    code: int
    stdout: str
    stderr: str


def run_forked(
    arguments: tuple[str, ...],
    environment: Mapping[str, str],
    *,
    cwd: Path | str | None = None,
    stdin: bytes = b"",
) -> Ended:
    """Run the command to its end, with nothing but this environment."""
    with tempfile.TemporaryDirectory(prefix="billing-fork-") as made:
        streams = Path(made)
        for name, content in zip(STREAMS, (stdin, b"", b""), strict=True):
            (streams / name).write_bytes(content)
        process = FORKS.Process(
            target=_be_billing,
            args=(arguments, dict(environment), str(cwd or Path.cwd()), made),
        )
        process.start()
        process.join(TIMEOUT_SECONDS)
        code = process.exitcode
        if code is None:
            process.kill()
            process.join()
        process.close()
        stdout, stderr = ((streams / name).read_text("utf-8") for name in STREAMS[1:])
    assert code is not None, f"billing {arguments} did not end: {stdout}{stderr}"
    return Ended(code, stdout, stderr)


def shown_on_terminal(
    arguments: tuple[str, ...], environment: Mapping[str, str], width: int
) -> str:
    """Run the command with its stdout on a terminal of a width, and return what that showed."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, width))
    with tempfile.TemporaryDirectory(prefix="billing-fork-") as made:
        for name, target in zip(STREAMS, (os.devnull, os.ttyname(theirs), os.devnull), strict=True):
            (Path(made) / name).symlink_to(target)
        process = FORKS.Process(
            target=_be_billing, args=(arguments, dict(environment), str(Path.cwd()), made)
        )
        process.start()
        shown = b""
        with os.fdopen(ours, "rb", buffering=0) as terminal:
            # The fork has the terminal open before this end is closed here.
            shown += terminal.read(1)
            os.close(theirs)
            try:
                while piece := terminal.read(65536):
                    shown += piece
            except OSError:
                pass  # How a terminal says that nobody has it open any more.
        process.join()
    return shown.decode()


def _be_billing(
    arguments: tuple[str, ...], environment: Mapping[str, str], cwd: str, streams: str
) -> None:
    """Be `billing` with these arguments in this environment."""
    for number, name in enumerate(STREAMS):
        mode = os.O_WRONLY | os.O_APPEND if number else os.O_RDONLY
        opened = os.open(f"{streams}/{name}", mode)
        os.dup2(opened, number)
        os.close(opened)
    sys.stdin = open(0, closefd=False, encoding="utf-8")  # noqa: SIM115 - until the process ends
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["billing", *arguments]
    main()
