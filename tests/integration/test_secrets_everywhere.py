"""Every command at debug level, with secrets wherever there may be some: none is ever written.

What is searched is all that a process leaves behind: stdout, stderr, every row of both schemas,
the metrics file, temporary files, and the directory that it was started in.
"""

from __future__ import annotations

import base64
import json
import os
import re
import ssl
import struct
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

import psycopg
import pytest
import trustme

from billing_cli.cli.root import SUMMARIES
from billing_cli.core.times import format_rfc3339, minute_of
from billing_cli.simulator.server import Endpoint, serve
from billing_cli.simulator.traffic import Fleet
from tests.cli.command import billing
from tests.integration.jobs.world import World
from tests.support.authority import Authority
from tests.support.postgres import URL_VARIABLE
from tests.unit.exporter.servers import serving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.unit.exporter.servers import Visit

# In every secret, and in nothing else; its case may be changed, and what stands around it escaped.
MARKER = "m4rk3r"

PASSWORD = f"{MARKER} p@ss/w%rd'0123456789"
FILE_TOKEN = f"{MARKER}-file-token-0123456789"
CREDENTIAL_TOKEN = f"{MARKER}-credential-token-0123456789"
VARIABLE_TOKEN = f"{MARKER}-variable-token-0123456789"
SHARED_TOKEN = f"{MARKER}-shared-token-0123456789"
PING_PATH = f"{MARKER}-ping-0123456789"
TOKENS = (FILE_TOKEN, CREDENTIAL_TOKEN, VARIABLE_TOKEN, SHARED_TOKEN)
MINUTES = 6

A_UUID = "11111111-1111-1111-1111-111111111111"
RANGE = ("--since", "{since}", "--until", "{until}")
REASON = ("--reason", "because")
COMMANDS: dict[str, tuple[tuple[str, ...], ...]] = {
    "migrate": (("--check",), ("--json",), ("--sql", "--grant-to", "somebody")),
    "check": ((), ("--json",), ("--source", "fra-1")),
    "collect": (("--dry-run",), ("--json",), ("--source", "nobody")),
    "catch-up": ((), ("--json", "--dry-run", "--since", "{since}")),
    "reconcile": ((*RANGE,), ("--json", "--dry-run")),
    "held": (("list",), ("release", "1", *REASON, "--json"), ("reject", "2", *REASON)),
    "streams": ((), ("--json",)),
    "rerate": ((*RANGE, *REASON, "--pricing-rule-version", "v2", "--json", "--dry-run"),),
    "audit": ((), ("--json",)),
    "repair": (("balances", *REASON, "--json"), ("balances", *REASON, "--dry-run")),
    "sources": (("move", "nobody", "us-1", "--json"), ("move", "jp-1", "us-1", "--dry-run")),
    "suspend": (("--json",), ("--dry-run",)),
    "prune": (("--keep", "999mo", "--unproven"), ("--keep", "1mo", "--dry-run", "--json")),
    "explain": (("{account}",), ("{account}", "--json"), (A_UUID,)),
    "status": ((), ("--json",)),
    "usage": ((), ("--json",), ("--by", "account", "--output", "csv")),
    "reverse": (("--source", "jp-1", *RANGE, *REASON, "--json", "--dry-run"),),
    "statement": (
        ("{account}", "--month", "2026-04"),
        ("{account}", "--month", "2026-04", "--format", "json"),
    ),
    "seal": (("--key-ref", "file:{secrets}/token"), ("--key-ref", "credential:shared", "--json")),
    "verify": ((), ("--json", "--checkpoint", "{secrets}/token")),
    "archive": (("--month", "2026-04", "--to", "{secrets}/archive", "--json"),),
    "simulate": (("--price", "1", *RANGE), ("--price", "0", *RANGE, "--json")),
    "config": (("show",), ("show", "--json"), ("schema",)),
    "init": (
        (
            "--directory",
            "{secrets}/new",
            "--source",
            "jp-1=https://x",
            "--price",
            "1",
            "--token-file",
            "jp-1={secrets}/token",
            "--database-url",
            "{database_url}",
        ),
    ),
}


def test_every_command_is_tried() -> None:
    """A new one has to be added here."""
    assert SUMMARIES.keys() <= COMMANDS.keys()


def test_commands_that_succeed_show_no_secret(place: Place) -> None:
    """Tokens, passwords, keys and addresses are used all over, and stay where they are."""
    place.extra["BILLING_ACCOUNT_RATE_BITS_PER_SECOND"] = "1"
    place.run("collect", "--source", "jp-1")
    del place.extra["BILLING_ACCOUNT_RATE_BITS_PER_SECOND"]
    place.run_all()
    # The role of the jobs may not prune, seal or suspend, nothing is sealed, and no source can be
    # moved here; what each of them prints is looked at as well.
    assert place.worked == SUMMARIES.keys() - {"archive", "prune", "seal", "sources", "suspend"}
    # The secrets were really sent.
    sources = place.world.rows("SELECT source_id FROM billing.sources ORDER BY 1")
    assert sources == [("fra-1",), ("jp-1",), ("sg-1",), ("us-1",)]


def test_exporters_that_send_everything_back_make_nobody_show_a_secret(place: Place) -> None:
    """As a name, a stamp, an identifier, an error page, or spelled with escapes."""
    for spelled in (str, escaped):
        place.world.running["jp-1"].rewrite = replacing(b'"xhttp"', f'"{spelled(FILE_TOKEN)}"')
        place.world.running["us-1"].rewrite = replacing(
            b'"us-1.svc.plus"', f'"{spelled(CREDENTIAL_TOKEN)}"'
        )
        place.world.running["fra-1"].body = f"Bearer {spelled(VARIABLE_TOKEN)}".encode()
        place.world.running["sg-1"].rewrite = replacing(
            rb'"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"', f'"{spelled(SHARED_TOKEN)}"'
        )
        place.run_all("collect", "reconcile", "check", "status", variants=2)
        assert "collect" not in place.worked  # Not one of the answers is used.


def test_a_short_token_that_comes_back_as_a_uuid_is_not_shown(place: Place) -> None:
    """It may be an ordinary word, so that the answer is used, but for the sample."""
    (place.secrets / "shared").write_text(f"{MARKER}-t", encoding="utf-8")
    endpoint = place.world.running["sg-1"]
    endpoint.token = f"{MARKER}-t"
    for spelled in (str, escaped):
        endpoint.rewrite = replacing(
            rb'"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"', f'"{spelled(endpoint.token)}"'
        )
        place.run_all("collect", "reconcile", "status", variants=2)


def test_refused_credentials_make_nobody_show_them(place: Place) -> None:
    """Neither what was sent nor what was wanted."""
    for source_id in place.world.fleet.nodes:
        place.world.running[source_id].token = f"{MARKER}-wanted-0123456789"
    place.run_all("collect", "reconcile", "check", "status")


def test_a_redirect_makes_nobody_show_or_send_a_token(place: Place) -> None:
    """Neither to the new address nor in the reason."""

    def redirect(visit: Visit) -> None:
        token = visit.head.partition("Bearer ")[2].partition("\r\n")[0]
        visit.send(f"HTTP/1.1 302 {token}\r\nLocation: /?{token}\r\n\r\n".encode())

    with serving(redirect) as server:
        place.sources = [
            {
                "source_id": "jp-1",
                "base_url": server.url,
                "credential_ref": f"file:{place.secrets}/token",
            }
        ]
        place.run_all("collect", "reconcile", "check", variants=1)


def test_exporters_that_are_down_make_nobody_show_a_secret(place: Place) -> None:
    """At the level at which libraries would tell all they know."""
    for source_id in place.world.fleet.nodes:
        place.world.running[source_id].down = True
    place.run_all("collect", "catch-up", "reconcile", "check", variants=1)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("token", f"{MARKER}\n{MARKER}"),
        ("token", f"{MARKER}\u20ac{MARKER}"),
        ("client.key", MARKER),
        ("client.key", f"-----BEGIN PRIVATE KEY-----\n{MARKER}\n-----END PRIVATE KEY-----\n"),
        ("client.pem", f"-----BEGIN CERTIFICATE-----\n{MARKER}\n-----END CERTIFICATE-----\n"),
        ("ca.pem", MARKER),
        ("dsn", f"mysql://billing:{MARKER}@127.0.0.1/account"),
        ("shared", f"{MARKER} {MARKER}"),
        ("ping", f"ftp://{MARKER}/{MARKER}"),
    ],
)
def test_a_file_that_holds_something_else_is_not_shown(
    place: Place, name: str, content: str
) -> None:
    """A half-written one, or one of another kind."""
    (place.secrets / name).write_text(content, encoding="utf-8")
    place.run_all("collect", "check", variants=1)


@pytest.mark.parametrize(
    "dsn",
    [
        f"postgresql://billing:{quote(PASSWORD, safe='')}@127.0.0.1:1/account",
        f"postgresql://billing:a@{MARKER}@127.0.0.1:1/account",
        f"postgresql://billing:a/{MARKER}@127.0.0.1:1/account",
        f"postgresql://billing:{MARKER}:1@127.0.0.1:1/account",
        f"postgresql://billing:{MARKER}?{MARKER}@127.0.0.1:1/account",
        f"postgresql://billing@127.0.0.1:1/account?password={MARKER}&{MARKER}={MARKER}",
        f"host=127.0.0.1 port=1 password={MARKER} {MARKER}",
        f"host=127.0.0.1 port=1 password='{MARKER}",
        f"host=127.0.0.1 port=1 passfile=/nonexistent sslpassword={MARKER}",
        f"host=127.0.0.1 port=1 passwort={MARKER}",
    ],
)
def test_a_database_that_cannot_be_used_makes_nobody_show_its_password(
    place: Place, dsn: str
) -> None:
    """However the connection string went wrong."""
    place.extra["DATABASE_URL"] = dsn
    place.run_all("migrate", "collect", variants=1)
    assert place.worked == set()


def test_a_server_that_sends_the_password_back_makes_nobody_show_it(place: Place) -> None:
    """Whoever listens at the address may say anything, and know no better."""
    with serving(reflecting_postgres, greets=True) as server:
        place.extra["DATABASE_URL"] = (
            f"postgresql://billing:{quote(PASSWORD, safe='')}@127.0.0.1:{server.port}/account"
            "?sslmode=disable"
        )
        place.run_all("migrate", "check", "collect", "held", "status", variants=2)


@pytest.mark.parametrize(
    "variables",
    [
        {"PRICE_PER_BYTE": SHARED_TOKEN, "INTERNAL_SERVICE_TOKEN": SHARED_TOKEN},
        {"INTERNAL_SERVICE_TOKEN": f"{MARKER} {MARKER}"},
        {"EXPORTER_SOURCES_JSON": json.dumps([{"source_id": "a", "credential_ref": MARKER}])},
        {"EXPORTER_SOURCES_JSON": f'[{{"token": {MARKER}'},
        {"EXPORTER_SOURCES_JSON": "", "EXPORTER_BASE_URL": f"https://u:{MARKER}@127.0.0.1"},
        {"BILLING_DATABASE_URL_REF": MARKER},
    ],
)
def test_a_wrong_configuration_is_not_repeated(place: Place, variables: dict[str, str]) -> None:
    """Secrets in the wrong places are secrets."""
    place.extra |= variables
    place.run_all("collect", "check", variants=1)
    assert place.worked == set()


@pytest.fixture
def place(database_url: str, job_url: str, tmp_path: Path) -> Iterator[Place]:
    """Return a fleet of four over TLS, each with a token from somewhere else, and its secrets."""
    authority = Authority(trustme.CA(), tmp_path)
    context = authority.server_context("127.0.0.1")
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(authority.bundle)
    tokens = dict(zip(("jp-1", "us-1", "fra-1", "sg-1"), TOKENS, strict=True))
    fleet = Fleet(seed=7, start=minute_of(datetime.now(UTC)) - timedelta(minutes=MINUTES + 2))
    endpoints = {name: Endpoint(token=token) for name, token in tokens.items()}
    with (
        serve(fleet, ssl_context=context, endpoints=endpoints) as running,
        psycopg.connect(database_url, autocommit=True) as connection,
    ):
        world = World(job_url, running, connection)
        users = world.add_users(2)
        for source_id in tokens:
            world.add_node(source_id, users)
        world.flow_until(MINUTES)
        yield Place(world, tmp_path, authority)


class Place:
    """Where commands are run, and where they may leave something.

    `sources` and `extra` may be changed between two runs. `worked` are the commands of the
    last one that did what they were asked, if with remarks (exit codes 0 and 3).
    """

    def __init__(self, world: World, directory: Path, authority: Authority) -> None:
        self.world = world
        self.secrets = directory / "secrets"
        self.left_behind = directory / "left"
        self.secrets.mkdir()
        self.left_behind.mkdir()
        certificate, key = authority.client_files()
        contents = {
            "token": FILE_TOKEN,
            "us-1": CREDENTIAL_TOKEN,
            "shared": SHARED_TOKEN,
            "dsn": with_password(world.database_url),
            "ping": f"http://127.0.0.1:1/{PING_PATH}",
            "client.pem": certificate.read_text(),
            "client.key": key.read_text(),
            "ca.pem": Path(authority.bundle).read_text(),
        }
        for name, content in contents.items():
            (self.secrets / name).write_text(content, encoding="utf-8")
            (self.secrets / name).chmod(0o600)
        self.forbidden = [
            *(line for line in contents["client.key"].splitlines() if "-----" not in line),
            *(base64.b64encode(token.encode()).decode().rstrip("=") for token in TOKENS),
        ]
        references = {
            "jp-1": f"file:{self.secrets}/token",
            "us-1": "credential:us-1",
            "fra-1": "env:FRA_TOKEN",
            "sg-1": None,
        }
        self.sources: list[dict[str, Any]] = [
            source
            | {
                "auth_mode": "bearer",
                "credential_ref": references[source["source_id"]],
                "client_cert": str(self.secrets / "client.pem"),
                "client_key": "credential:client.key",
                "ca_bundle": str(self.secrets / "ca.pem"),
            }
            for source in world.running.sources()
        ]
        self.extra: dict[str, str] = {}
        self.worked: set[str] = set()

    def run_all(self, *names: str, variants: int = 10) -> None:
        """Run the named commands, or all, in some of their variants; nothing may be shown."""
        self.worked = set()
        for name in names or SUMMARIES:
            for number, arguments in enumerate(COMMANDS[name][:variants]):
                log_format = ("console", "json")[number % 2]
                self.run("--log-level", "debug", "--log-format", log_format, name, *arguments)
        stored = repr(self.world.tables())
        assert not self.secrets_in(stored)
        for path in self.left_behind.rglob("*"):
            assert not self.secrets_in(f"{path} {path.read_bytes() if path.is_file() else b''!r}")

    def run(self, *arguments: str) -> None:
        """Run a command to its end; what it says must hold no secret, and be no traceback."""
        finished = billing(
            *(argument.format(**self.values) for argument in arguments),
            environment=self.environment,
            cwd=self.left_behind,
        )
        said = f"{finished.stdout}{finished.stderr}"
        assert not self.secrets_in(said), said
        assert "Traceback" not in said, said
        assert finished.code in {0, 1, 2, 3, 69, 75, 78}, said
        if finished.code in {0, 3}:
            self.worked |= set(arguments) & COMMANDS.keys()

    def secrets_in(self, text: str) -> list[str]:
        """Return what of the secrets a text holds."""
        return [one for one in (MARKER, *self.forbidden) if one.lower() in text.lower()]

    @property
    def values(self) -> dict[str, str]:
        """What the commands' arguments are filled with."""
        return {
            "since": format_rfc3339(self.world.at(0)),
            "until": format_rfc3339(self.world.at(MINUTES)),
            "account": self.world.fleet.users[0].uuid,
            "secrets": str(self.secrets),
            "database_url": (self.secrets / "dsn").read_text("utf-8").strip(),
        }

    @property
    def environment(self) -> dict[str, str]:
        """What configures the commands: references, as far as nothing else is given."""
        references = {
            "DATABASE_URL": ("BILLING_DATABASE_URL_REF", f"file:{self.secrets}/dsn"),
            "INTERNAL_SERVICE_TOKEN": ("BILLING_INTERNAL_SERVICE_TOKEN_REF", "credential:shared"),
        }
        given = {ref: to for name, (ref, to) in references.items() if name not in self.extra}
        return {
            **given,
            "BILLING_PING_URL_REF": "credential:ping",
            "BILLING_METRICS_FILE": str(self.left_behind / "billing.prom"),
            "CREDENTIALS_DIRECTORY": str(self.secrets),
            "EXPORTER_SOURCES_JSON": json.dumps(self.sources),
            "FRA_TOKEN": VARIABLE_TOKEN,
            "PRICE_PER_BYTE": "0.000001",
            "TMPDIR": str(self.left_behind),
            **self.extra,
        }


def with_password(url: str) -> str:
    """Return a URL with a password that has secrets in it, where the server asks for none."""
    if URL_VARIABLE in os.environ:
        return url
    parts = urlsplit(url)
    user = parts.netloc.partition(":")[0]
    server = parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=f"{user}:{quote(PASSWORD, safe='')}@{server}").geturl()


def escaped(text: str) -> str:
    """Return a text as JSON may have it as well."""
    return "".join(f"\\u{ord(one):04x}" for one in text)


def replacing(pattern: bytes, text: str) -> Callable[[bytes], bytes]:
    """Return what puts a text in place of whatever fits."""
    return lambda body: re.sub(pattern, lambda _: text.encode(), body)


def reflecting_postgres(visit: Visit) -> None:
    """Ask for the password in the clear, and refuse it by its name."""
    (length,) = struct.unpack("!i", received(visit, 4))
    received(visit, length - 4)
    visit.send(b"R" + struct.pack("!ii", 8, 3))
    _, length = struct.unpack("!ci", received(visit, 5))
    password = received(visit, length - 4).rstrip(b"\0")
    fields = b"SFATAL\0VFATAL\0C28P01\0Mno such password: " + password + b"\0\0"
    visit.send(b"E" + struct.pack("!i", len(fields) + 4) + fields)


def received(visit: Visit, count: int) -> bytes:
    """Return so many bytes from the client."""
    data = b""
    while len(data) < count:
        piece = visit.connection.recv(count - len(data))
        if not piece:
            raise OSError("the client hung up")
        data += piece
    return data
