"""Runs the commands of the manual on a machine that is a directory."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)

# What the pages call by name, and a test must not do to its machine.
STAND_INS = {
    "apt-get": "exit 0",
    # It starts units that are there, by their names: a pattern stands for those that are loaded.
    "systemctl": """cd "$HERE/etc/systemd/system"
verb=$1; shift
case $verb in
  cat) cat "$1" && find . -path './billing-.service.d/*.conf' -exec cat {} + ;;
  enable) shift; ls "$@" >/dev/null; mkdir -p timers.target.wants
    for timer; do ln -sf "../$timer" timers.target.wants; done ;;
  disable) shift; cd timers.target.wants && rm -f "$@" ;;
  start) [ $# -gt 0 ] && ls -- "$@" >/dev/null ;;
esac""",
    # What the wrapper hands over is tested by itself. As a unit, it starts in / unless told where.
    "systemd-run": """cd /
while [ "$1" != -- ]; do
  case $1 in --property=WorkingDirectory=-*) cd "${1#*=-}" || : ;; esac
  shift
done
shift 2
BILLING_CONFIG="$HERE/etc/billing/billing.toml" exec "$PROGRAM" "$@\"""",
    # The group is of nobody here.
    "install": 'for word; do shift; case $word in -g|billing-metrics) ;; *) set -- "$@" "$word" ;; '
    'esac; done\nexec /usr/bin/install "$@"',
    "groupadd": "exit 0",
    "groupdel": "exit 0",
    "useradd": "exit 0",
    "chgrp": "exit 0",
    "man": "exit 0",
    "python3": """case "$*" in
  "-m venv "*) mkdir -p "$3/bin"; ln -s "$HERE/stand-ins/pip" "$3/bin/pip"
    ln -s "$PROGRAM" "$3/bin/billing"
    cp -r "$SOURCE/share" "$3/"; mv "$3/share/billing" "$3/bin-of-share"
    mkdir "$3/share/billing"; mv "$3/bin-of-share" "$3/share/billing/bin"
    cp -r "$SOURCE/systemd" "$3/share/billing/" ;;
esac""",
    "pip": "exit 0",
    # A release is built where everything is, and installed in an empty environment, by `.ci/run`.
    "make": """mkdir -p dist; cp "$SOURCE"/requirements*.lock dist; cd dist
touch billing-0-py3-none-any.whl; sha256sum * > SHA256SUMS""",
    # `su - postgres -c COMMAND`
    "su": 'PGHOST="$SOCKETS" PGUSER=postgres exec /bin/sh -c "$4"',
}


def blocks(page: str, start: str = "", end: str = "\0") -> str:
    """Return the shell commands of a page, from a heading to another."""
    text = (ROOT / "docs" / page).read_text("utf-8")
    return "\n".join(BLOCK.findall(text[text.index(start) :].partition(end)[0]))


def here(script: str, directory: Path, exporter: str = "", sockets: str = "") -> str:
    """Return a script of a page for a machine that is a directory."""
    for path in ("/opt/billing", "/usr/local/bin", "/etc/", "/var/lib/billing-metrics"):
        script = re.sub(rf"(?<![\w/]){path}", f"{directory}{path}", script)
    script = script.replace("https://jp-1.example.net:8443", exporter)
    script = script.replace("@127.0.0.1:5432/account", f"@/account?host={sockets}")
    return script.replace("billing init ", f"billing init --directory {directory}/etc/billing ")


def environment(directory: Path, programs: Path, sockets: str) -> dict[str, str]:
    """Return the environment of the page's shell, with the stand-ins first."""
    stand_ins = directory / "stand-ins"
    stand_ins.mkdir(exist_ok=True)
    for name, body in STAND_INS.items():
        (stand_ins / name).write_text(f"#!/bin/sh\n{body}\n", "utf-8")
        (stand_ins / name).chmod(0o755)
    for name in ("usr/local/bin", "etc/systemd/system", "etc/bash_completion.d"):
        (directory / name).mkdir(parents=True, exist_ok=True)
    return {
        "PATH": f"{stand_ins}:{directory}/usr/local/bin:{programs}:/usr/bin:/bin",
        "HERE": str(directory),
        "SOURCE": str(ROOT),
        "PROGRAM": str(Path(sys.executable).with_name("billing")),
        "SOCKETS": sockets.replace("%2F", "/"),
    }


def run(
    script: str, directory: Path, environment: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    """Run a script to its end, and end what it left behind; the first error ends it.

    The umask is that of a root who shares nothing.
    """
    return subprocess.run(  # noqa: S603 - the page's own commands
        ["/bin/bash", "-c", f"set -euo pipefail\n{script}"],
        cwd=directory,
        env={"LANG": "C.UTF-8", "HOME": str(directory), **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        umask=0o077,
        check=False,
    )
