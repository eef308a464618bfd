"""A Prometheus server that scrapes a file, as it would by way of node_exporter."""

from __future__ import annotations

import re
import shutil
import subprocess
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest
import requests

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CONFIGURATION = """
global:
  scrape_interval: 300ms
  scrape_timeout: 300ms
  evaluation_interval: 500ms
rule_files: [{rules}]
scrape_configs:
  - job_name: node
    static_configs:
      - targets: ["127.0.0.1:{port}"]
"""

LISTENING = re.compile(r"Listening on\S* address=127\.0\.0\.1:(\d+)")

# No answer takes that long; only what never comes is waited for until then.
PATIENCE_SECONDS = 60.0
PAUSE_SECONDS = 0.1


@contextmanager
def scraping(path: Path, rules: Path, directory: Path) -> Iterator[Prometheus]:
    """Run a server that scrapes the file's content for the length of the block.

    Skips the test where the program is not installed.
    """
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("prometheus is not installed")
    with _served(path) as port:
        configuration = directory / "prometheus.yml"
        configuration.write_text(CONFIGURATION.format(rules=rules, port=port), encoding="utf-8")
        log = directory / "prometheus.log"
        with (
            log.open("wb") as stderr,
            subprocess.Popen(  # noqa: S603
                [
                    program,
                    f"--config.file={configuration}",
                    f"--storage.tsdb.path={directory / 'data'}",
                    "--web.listen-address=127.0.0.1:0",
                ],
                stdin=subprocess.DEVNULL,
                stderr=stderr,
            ) as process,
        ):
            try:
                yield Prometheus(_port(process, log))
            finally:
                process.terminate()


class Prometheus:
    """A server on a port of this machine."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/api/v1"

    def result_of(self, query: str) -> list[Any]:
        """Return what a query gives as soon as it gives anything; fail where it never does."""
        return until(lambda: self._get("query", query=query)["result"], query)

    def rules(self) -> list[dict[str, Any]]:
        """Return the rules, each evaluated once at least."""

        def evaluated() -> list[dict[str, Any]]:
            groups = self._get("rules")["groups"]
            found = [rule for group in groups for rule in group["rules"]]
            return found if all(rule["health"] != "unknown" for rule in found) else []

        return until(evaluated, "rules")

    def _get(self, path: str, **parameters: str) -> Any:
        with requests.Session() as session:
            session.trust_env = False
            answer = session.get(f"{self.url}/{path}", params=parameters, timeout=PATIENCE_SECONDS)
            if answer.status_code == requests.codes.unavailable:
                return {"result": [], "groups": []}
            body = answer.json()
        assert body["status"] == "success", body
        return body["data"]


def until(find: Any, what: str) -> Any:
    """Return what is found as soon as there is something."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (found := find()):
        if time.monotonic() > deadline:
            pytest.fail(f"nothing came of {what}")
        time.sleep(PAUSE_SECONDS)
    return found


def _port(process: subprocess.Popen[bytes], log: Path) -> int:
    def listening() -> re.Match[str] | None:
        text = log.read_text(encoding="utf-8")
        assert process.poll() is None, text
        return LISTENING.search(text.replace('"', ""))

    return int(until(listening, "the server")[1])


@contextmanager
def _served(path: Path) -> Iterator[int]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = path.read_bytes()
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        serving = threading.Thread(target=server.serve_forever, args=(0.02,), name="metrics")
        serving.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            serving.join()
