"""Real TLS servers with certificates made on the spot: who is spoken to, and who is not."""

from __future__ import annotations

import os
import re
import ssl
import subprocess
import warnings
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trustme

from billing_cli.exporter import tls
from billing_cli.exporter.api import ExporterError
from billing_cli.exporter.credentials import SecretToken
from billing_cli.exporter.pins import key_digest
from tests.support.authority import Authority
from tests.unit.exporter.answers import encoded, fetched, minutes, page
from tests.unit.exporter.servers import Server, answering, http, serving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from billing_cli.exporter.api import Fetched
    from tests.unit.exporter.servers import Visit

GOOD = encoded(page(minutes(3)))

SECURITY_PAGE = (Path(__file__).parents[3] / "docs" / "security.md").read_text(encoding="utf-8")
OTHER_PIN = "0" * 64


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Return a CA that no system trusts."""
    return Authority(trustme.CA(), tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Return another CA that nobody trusts."""
    return Authority(trustme.CA(), tmp_path_factory.mktemp("stranger"))


@pytest.fixture
def exporter(authority: Authority) -> Iterator[Server]:
    """Return a good exporter with a certificate for 127.0.0.1."""
    with serving(answering(GOOD), authority.server_context("127.0.0.1")) as server:
        yield server


@pytest.fixture
def strict_exporter(authority: Authority) -> Iterator[Server]:
    """Return one that demands a client certificate."""
    context = authority.server_context("127.0.0.1")
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(authority.bundle)
    with serving(answering(GOOD), context) as server:
        yield server


def test_a_pinned_authority_is_accepted(authority: Authority, exporter: Server) -> None:
    """The source's own bundle is what its exporter is verified against."""
    assert_good(fetched(exporter.url, ca_bundle=authority.bundle))


def test_the_system_s_authorities_are_trusted_by_default(
    authority: Authority, exporter: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no bundle is set, those that were compiled in."""
    places = ssl.get_default_verify_paths()._replace(
        openssl_cafile=authority.bundle, openssl_capath="/nonexistent"
    )
    monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: places)
    assert_good(fetched(exporter.url))


def test_the_bundle_replaces_the_system_s_authorities(
    authority: Authority, stranger: Authority, exporter: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A certificate that the system would trust is not enough for a pinned source."""
    places = ssl.get_default_verify_paths()._replace(openssl_cafile=authority.bundle)
    monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: places)
    assert "certificate" in refusal(exporter, ca_bundle=stranger.bundle)


def test_a_pinned_key_is_required_before_anything_is_sent(
    authority: Authority, exporter: Server
) -> None:
    """A trusted certificate for the right name is not enough for a source with a pin."""
    pin = pin_of(exporter)
    trusted = {"ca_bundle": authority.bundle, "default_token": SecretToken("a-token-of-ours")}
    assert_good(fetched(exporter.url, pinned_sha256=(OTHER_PIN, pin), **trusted))
    before = len(exporter.heads)
    why = refusal(exporter, pinned_sha256=(OTHER_PIN,), auth_mode="bearer", **trusted)
    assert why == f"the key of the exporter is not pinned: its sha256 is {pin}"
    assert len(exporter.heads) == before


def test_a_pin_does_not_replace_the_verification(exporter: Server) -> None:
    """The right key without a trusted certificate is refused as before."""
    why = refusal(exporter, pinned_sha256=(pin_of(exporter),))
    assert "unable to get local issuer certificate" in why


def test_a_pin_is_what_openssl_computes(authority: Authority, tmp_path: Path) -> None:
    """As the manual says: of the key, so that a renewed certificate keeps it."""
    certificate = authority.ca.issue_cert("127.0.0.1").cert_chain_pems[0].bytes()
    path = tmp_path / "exporter.pem"
    path.write_bytes(certificate)
    command = re.findall(r"^(openssl x509 .*)$", SECURITY_PAGE, re.MULTILINE)[0]
    shown = subprocess.run(  # noqa: S602 - the manual's own line
        command.replace("exporter.pem", str(path)),
        shell=True,
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stdout.split()[-1] == key_digest(ssl.PEM_cert_to_DER_cert(certificate.decode()))


def test_an_unknown_authority_is_refused(exporter: Server) -> None:
    """The system does not know who signed this."""
    assert "unable to get local issuer certificate" in refusal(exporter)


def test_the_environment_is_not_listened_to(
    authority: Authority, exporter: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """No authorities, no proxies, no passwords and no key log come from there."""
    for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.setenv(name, authority.bundle)
    monkeypatch.setenv("SSL_CERT_DIR", str(Path(authority.bundle).parent))
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys"))
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login user password marker\n")
    monkeypatch.setenv("NETRC", str(netrc))
    assert "certificate" in refusal(exporter)
    assert_good(fetched(exporter.url, ca_bundle=authority.bundle))
    assert "Authorization" not in exporter.heads[-1]
    assert not (tmp_path / "keys").exists()


def test_an_expired_certificate_is_refused(authority: Authority) -> None:
    """Whoever signed it."""
    context = authority.server_context("127.0.0.1", not_after=datetime(2020, 1, 1, tzinfo=UTC))
    with serving(answering(GOOD), context) as server:
        assert "certificate has expired" in refusal(server, ca_bundle=authority.bundle)


@pytest.mark.parametrize("name", ["jp-1.example", "127.0.0.2"])
def test_a_certificate_for_another_name_is_refused(authority: Authority, name: str) -> None:
    """A name or an address that the URL does not have."""
    with serving(answering(GOOD), authority.server_context(name)) as server:
        assert "not valid for '127.0.0.1'" in refusal(server, ca_bundle=authority.bundle)


def test_a_common_name_is_no_name(authority: Authority) -> None:
    """Only the alternative names of a certificate count."""
    context = authority.server_context("jp-1.example", common_name="127.0.0.1")
    with serving(answering(GOOD), context) as server:
        assert "not valid for '127.0.0.1'" in refusal(server, ca_bundle=authority.bundle)


def test_a_self_signed_certificate_is_refused(authority: Authority, stranger: Authority) -> None:
    """Signed by itself is signed by nobody."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with stranger.ca.private_key_pem.tempfile() as key:
        context.load_cert_chain(stranger.bundle, key)
    with serving(answering(GOOD), context) as server:
        assert "self-signed certificate" in refusal(server, ca_bundle=authority.bundle)


def test_tls_1_1_is_refused(authority: Authority) -> None:
    """A server that speaks nothing newer does not get a connection."""
    context = authority.server_context("127.0.0.1")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    with serving(answering(GOOD), context) as server:
        assert "protocol version" in refusal(server, ca_bundle=authority.bundle)


def test_tls_1_2_is_accepted(authority: Authority) -> None:
    """It is the oldest that is."""
    context = authority.server_context("127.0.0.1")
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with serving(answering(GOOD), context) as server:
        assert_good(fetched(server.url, ca_bundle=authority.bundle))


def test_server_name_is_sent_and_verified_where_the_url_has_an_address(
    authority: Authority,
) -> None:
    """The name goes into the handshake, and the certificate has to be for it."""
    context = authority.server_context("jp-1.example")
    asked: list[str | None] = []
    context.sni_callback = lambda _socket, name, _context: asked.append(name)
    with serving(answering(GOOD), context) as server:
        assert_good(fetched(server.url, ca_bundle=authority.bundle, server_name="jp-1.example"))
        assert asked == ["jp-1.example"]
        why = refusal(server, ca_bundle=authority.bundle, server_name="us-2.example")
        assert "not valid for 'us-2.example'" in why


def test_the_url_s_own_address_does_not_count_beside_server_name(
    authority: Authority, exporter: Server
) -> None:
    """Its certificate is for 127.0.0.1, which is not what the source is called."""
    why = refusal(exporter, ca_bundle=authority.bundle, server_name="jp-1.example")
    assert "not valid for 'jp-1.example'" in why


def test_a_client_certificate_is_shown(authority: Authority, strict_exporter: Server) -> None:
    """Key and certificate in two files or in one; no default token goes with them."""
    certificate, key = authority.client_files()
    both = authority.directory / "both.pem"
    both.write_bytes(key.read_bytes() + certificate.read_bytes())
    both.chmod(0o600)
    two: dict[str, Any] = {"client_cert": str(certificate), "client_key": str(key)}
    one: dict[str, Any] = {"client_cert": str(both)}
    for files in (two, one):
        result = fetched(
            strict_exporter.url,
            ca_bundle=authority.bundle,
            auth_mode="mtls",
            default_token=SecretToken("default-token"),
            **files,
        )
        assert_good(result)
        assert result.notes == ()
        assert "Authorization" not in strict_exporter.heads[-1]


@pytest.mark.parametrize("mode", ["mtls", "bearer"])
def test_certificate_and_token_go_together(
    authority: Authority, strict_exporter: Server, mode: str
) -> None:
    """A source may have both, by either mode."""
    certificate, key = authority.client_files()
    result = fetched(
        strict_exporter.url,
        ca_bundle=authority.bundle,
        auth_mode=mode,
        client_cert=str(certificate),
        client_key=str(key),
        credential_ref="env:TOKEN",
        environ={"TOKEN": "own-token"},
    )
    assert_good(result)
    assert "Authorization: Bearer own-token\r\n" in strict_exporter.heads[-1]


def test_a_token_is_not_sent_to_whom_is_not_trusted(exporter: Server) -> None:
    """The handshake ends before there is a request."""
    refusal(exporter, auth_mode="bearer", default_token=SecretToken("default-token"))
    assert exporter.heads == []


def test_a_missing_client_certificate_is_refused_by_the_server(
    authority: Authority, strict_exporter: Server
) -> None:
    """In TLS 1.3 this shows up with the first read only."""
    assert_hung_up(refusal(strict_exporter, ca_bundle=authority.bundle))


def test_a_client_certificate_of_a_stranger_is_refused_by_the_server(
    authority: Authority, stranger: Authority, strict_exporter: Server
) -> None:
    """The server says so, and it is told."""
    certificate, key = stranger.client_files()
    why = refusal(
        strict_exporter,
        ca_bundle=authority.bundle,
        client_cert=str(certificate),
        client_key=str(key),
    )
    assert_hung_up(why)


def test_a_key_that_others_can_read_is_remarked_upon(
    authority: Authority, strict_exporter: Server
) -> None:
    """The note names the file; the source works."""
    certificate, key = authority.client_files("shared")
    key.chmod(0o640)
    result = fetched(
        strict_exporter.url,
        ca_bundle=authority.bundle,
        auth_mode="mtls",
        client_cert=str(certificate),
        client_key=str(key),
    )
    assert_good(result)
    assert result.notes == (f"the key file {key} can be read by other users",)


def test_replaced_files_are_used_by_the_next_run(
    authority: Authority, stranger: Authority, strict_exporter: Server, tmp_path: Path
) -> None:
    """Nothing is kept from one fetch to the next; a half-written file is an error meanwhile."""
    certificate, key, bundle = tmp_path / "c.pem", tmp_path / "k.pem", tmp_path / "ca.pem"

    def install(source: Authority, parts: Callable[[bytes], bytes] = bytes) -> None:
        files = source.client_files()
        certificate.write_bytes(parts(files[0].read_bytes()))
        key.write_bytes(files[1].read_bytes())
        key.chmod(0o600)

    def fetch() -> Fetched:
        return fetched(
            strict_exporter.url,
            auth_mode="mtls",
            ca_bundle=str(bundle),
            client_cert=str(certificate),
            client_key=str(key),
        )

    bundle.write_bytes(Path(authority.bundle).read_bytes())
    install(stranger)
    with pytest.raises(ExporterError) as caught:
        fetch()
    assert_hung_up(caught.value.reason)
    install(authority, lambda content: content[: len(content) // 2])
    with pytest.raises(ExporterError, match=f"client_cert {certificate}"):
        fetch()
    install(authority)
    assert_good(fetch())
    bundle.write_bytes(b"")
    with pytest.raises(ExporterError, match=f"ca_bundle {bundle}"):
        fetch()


@pytest.mark.parametrize(
    ("why", "fields"),
    [
        ("auth_mode mtls needs client_cert", {"auth_mode": "mtls"}),
        ("client_key without client_cert", {"client_key": "{tmp}/key"}),
        ("{tmp}/missing cannot be used: no such file", {"client_cert": "{tmp}/missing"}),
        ("{tmp}/garbage cannot be used", {"client_cert": "{tmp}/garbage"}),
        ("client_key {tmp}/locked cannot be used", {"client_key": "{tmp}/locked"}),
        (
            "client_key {tmp}/other cannot be used: key values mismatch",
            {"client_key": "{tmp}/other"},
        ),
        ("ca_bundle {tmp}/missing cannot be used: no such file", {"ca_bundle": "{tmp}/missing"}),
        ("ca_bundle {tmp}/garbage cannot be used", {"ca_bundle": "{tmp}/garbage"}),
        ("ca_bundle {tmp}/leaf.crt cannot be used", {"ca_bundle": "{tmp}/leaf.crt"}),
        ("ca_bundle {tmp} cannot be used: not a regular file", {"ca_bundle": "{tmp}"}),
        ("ca_bundle {tmp}/pipe cannot be used: not a regular file", {"ca_bundle": "{tmp}/pipe"}),
        ("client_key {tmp}/pipe cannot be used: not a regular", {"client_key": "{tmp}/pipe"}),
    ],
)
def test_an_unusable_file_is_named(
    authority: Authority, tmp_path: Path, why: str, fields: dict[str, str]
) -> None:
    """Before anything is sent, in words that tell the key and the path."""
    certificate, key = authority.client_files("leaf")
    (tmp_path / "leaf.crt").write_bytes(certificate.read_bytes())
    (tmp_path / "garbage").write_text("-----BEGIN CERTIFICATE-----\nhunter2\n")
    (tmp_path / "other").write_bytes(authority.client_files("other")[1].read_bytes())
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "locked").write_bytes(encrypted(key.read_bytes()))
    if "client_key" in fields and "without" not in why:
        fields = {"client_cert": str(certificate)} | fields
    filled: dict[str, Any] = {name: value.format(tmp=tmp_path) for name, value in fields.items()}
    with pytest.raises(ExporterError) as caught:
        fetched("https://127.0.0.1:9", **filled)
    assert why.format(tmp=tmp_path) in caught.value.reason
    assert "hunter2" not in caught.value.reason


def test_a_system_without_authorities_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It is not the same as trusting nobody: the operator can do something about it."""
    places = ssl.get_default_verify_paths()._replace(
        openssl_cafile=str(tmp_path / "none"), openssl_capath=str(tmp_path / "none")
    )
    monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: places)
    monkeypatch.setattr(tls, "_SYSTEM_BUNDLES", (str(tmp_path / "none"),))
    with pytest.raises(ExporterError, match="set ca_bundle"):
        fetched("https://127.0.0.1:9")


def test_a_redirect_takes_no_token_elsewhere(authority: Authority) -> None:
    """Not to another host and not to another path: it is not followed at all."""
    with serving(answering(GOOD), authority.server_context("127.0.0.1")) as elsewhere:

        def redirect(visit: Visit) -> None:
            visit.send(http(status="302 Found", headers={"Location": elsewhere.url}))

        with serving(redirect, authority.server_context("127.0.0.1")) as server:
            why = refusal(
                server,
                ca_bundle=authority.bundle,
                auth_mode="bearer",
                default_token=SecretToken("default-token"),
                unreachable=False,
            )
    assert why == "HTTP 302: redirects are not followed"
    assert len(server.heads) == 1
    assert elsewhere.heads == []


def test_a_tunnel_through_a_proxy_ends_at_the_verified_exporter(
    authority: Authority, stranger: Authority, exporter: Server
) -> None:
    """The proxy sees the address and no token; its certificate would not do."""
    with serving(tunnel_to(exporter.port), greets=True) as proxy:
        more: dict[str, Any] = {
            "proxy": proxy.url,
            "auth_mode": "bearer",
            "default_token": SecretToken("default-token"),
        }
        assert_good(fetched(exporter.url, ca_bundle=authority.bundle, **more))
        assert "certificate" in refusal(exporter, ca_bundle=stranger.bundle, **more)
    assert "Authorization: Bearer default-token" in exporter.heads[0]
    assert all(head.startswith("CONNECT 127.0.0.1:") for head in proxy.heads)
    assert not any("default-token" in head for head in proxy.heads)


def test_a_proxy_that_refuses_is_told_from_the_exporter(authority: Authority) -> None:
    """The reason names the proxy."""

    def refuse(visit: Visit) -> None:
        visit.send(http(status="403 Forbidden"))

    with serving(refuse) as proxy, pytest.raises(ExporterError) as caught:
        fetched("https://jp-1.example", ca_bundle=authority.bundle, proxy=proxy.url)
    assert caught.value.reason == f"the proxy {proxy.url} refuses to connect to jp-1.example:443"
    assert caught.value.unreachable


def assert_good(result: Fetched) -> None:
    """The page arrived whole."""
    assert len(result.snapshots) == 3


def assert_hung_up(reason: str) -> None:
    """The server ended it; its alert may get lost when it resets the connection."""
    assert "TLS with 127.0.0.1" in reason or "closed the connection" in reason


def pin_of(server: Server) -> str:
    """Return the pin of the server's present key."""
    certificate = ssl.get_server_certificate(("127.0.0.1", server.port))
    return key_digest(ssl.PEM_cert_to_DER_cert(certificate))


def refusal(server: Server, *, unreachable: bool = True, **more: Any) -> str:
    """Return why the server is not used: one printable line."""
    with pytest.raises(ExporterError) as caught:
        fetched(server.url, **more)
    assert caught.value.reason.isprintable()
    assert caught.value.unreachable == unreachable
    return caught.value.reason


def tunnel_to(port: int) -> Callable[[Visit], None]:
    """Return a script that answers CONNECT and then carries bytes to and fro."""

    def script(visit: Visit) -> None:
        if visit.read_head():
            visit.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
            visit.carry(port)

    return script


def encrypted(key_pem: bytes) -> bytes:
    """Return a private key under a password."""
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415 - comes with trustme

    key = serialization.load_pem_private_key(key_pem, None)
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"hunter2"),
    )
