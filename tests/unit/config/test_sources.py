"""The registry of sources: what is accepted, and what names source and key where it is wrong."""

from __future__ import annotations

import base64
import json
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

import pytest

from billing_cli.config.source import Source
from billing_cli.errors import ConfigurationError
from tests.unit.config.support import (
    entry,
    error_of,
    from_environment,
    in_environment,
    problems_of,
    sources_error,
    sources_from,
    written,
)

if TYPE_CHECKING:
    from pathlib import Path

TOKEN = {"INTERNAL_SERVICE_TOKEN": "shared-token"}
PAIR = {"client_cert": __file__, "client_key": __file__}
JP_1 = "EXPORTER_SOURCES_JSON[0] 'jp-1'"
PIN = "0123456789abcdef" * 4
BAD_REFERENCE = "must be env:NAME, file:/absolute/path or credential:NAME"
LOOPBACK_ONLY = "http is for loopback hosts only (use https, or a source with allow_http = true)"
NOT_A_HOST = "is not a URL with a valid host and port"


def test_a_source_takes_every_key(tmp_path: Path) -> None:
    """All keys of the contract arrive in the value that the rest of the program sees."""
    for name in ("ca.pem", "cert.pem", "key.pem", "token"):
        (tmp_path / name).touch()
    keys: dict[str, Any] = {
        "source_id": "jp-1",
        "base_url": "https://10.0.0.1:8443/exporter",
        "enabled": True,
        "expected_node_id": "jp-1.svc.plus",
        "expected_env": "prod",
        "mode": "window",
        "auth_mode": "mtls",
        "credential_ref": f"file:{tmp_path}/token",
        "client_cert": f"{tmp_path}/cert.pem",
        "client_key": f"{tmp_path}/key.pem",
        "ca_bundle": f"{tmp_path}/ca.pem",
        "server_name": "jp-1.svc.plus",
        "timeout_seconds": 2.5,
        "collect_interval_seconds": 60,
        "region": "jp",
        "allow_http": False,
        "proxy": "http://proxy.example:3128",
        "account_rate_bits_per_second": 0,
        "line_rate_bits_per_second": 10**9,
        "max_streams_per_account": 10,
        "max_new_streams_per_hour": 0,
        "max_unresolved_streams_per_hour": 1,
        "max_daily_charge": 12,
        "pinned_sha256": (PIN,),
    }
    assert {field.name for field in fields(Source)} == keys.keys()
    assert asdict(sources_from(keys)[0]) == keys


def test_empty_strings_and_nulls_count_as_not_given() -> None:
    """Programs that write every key of a source write empty ones too."""
    blank = entry(
        client_cert="", client_key="", credential_ref=None, region="", mode="", expected_env=None
    )
    assert sources_from(blank) == sources_from(entry())


@pytest.mark.parametrize("value", ["", None])
def test_a_key_that_nobody_knows_is_an_error_though_it_is_blank(value: str | None) -> None:
    """A misspelt key is found before somebody gives it a value."""
    with pytest.raises(ConfigurationError, match="regoin"):
        sources_from(entry(regoin=value))


@pytest.mark.parametrize(
    ("keys", "variables", "mode"),
    [
        ({}, {}, "none"),
        ({}, TOKEN, "bearer"),
        ({"auth_mode": "none"}, TOKEN, "none"),
        ({"auth_mode": "bearer"}, TOKEN, "bearer"),
        ({"credential_ref": "env:JP_TOKEN"}, {"JP_TOKEN": "t"}, "bearer"),
        ({"auth_mode": "bearer", "credential_ref": "env:JP_TOKEN"}, {"JP_TOKEN": "t"}, "bearer"),
        (PAIR, {}, "mtls"),
        (PAIR, TOKEN, "mtls"),
        (PAIR | {"auth_mode": "bearer"}, TOKEN, "bearer"),
    ],
)  # fmt: skip
def test_the_auth_mode_is_what_is_said_else_what_the_credentials_mean(
    keys: dict[str, Any], variables: dict[str, str], mode: str
) -> None:
    """A source without auth_mode has the one that its certificate or its token stands for."""
    assert sources_from(entry(**keys), **variables)[0].auth_mode == mode


@pytest.mark.parametrize(
    ("keys", "key", "reason"),
    [
        ({"base_url": ""}, "base_url", "is missing"),
        ({"base_url": None}, "base_url", "is missing"),
        ({"base_url": 5}, "base_url", "must be a string"),
        ({"base_url": "jp-1.example:8443"}, "base_url", "must begin with https:// (or http://)"),
        ({"base_url": "https://"}, "base_url", NOT_A_HOST),
        ({"base_url": "https://[fe80::1%25eth0]"}, "base_url", NOT_A_HOST),
        ({"base_url": "https://-.-"}, "base_url", "needs a host name or an IP address"),
        ({"base_url": "https://jp-1:99999"}, "base_url", NOT_A_HOST),
        ({"base_url": "https://user:word@jp-1"}, "base_url",
         "must not hold a user name or password"),
        ({"base_url": "https://jp-1/?token=x"}, "base_url", "must not hold a query or a fragment"),
        ({"base_url": "https://jp-1/#x"}, "base_url", "must not hold a query or a fragment"),
        ({"base_url": "https://jp-1\r\nX: y"}, "base_url",
         "must be a URL in ASCII, without white space or control characters"),
        ({"base_url": "http://127.0.0.1\\.example"}, "base_url", NOT_A_HOST),
        ({"base_url": "http://jp-1.example"}, "base_url", LOOPBACK_ONLY),
        ({"base_url": "http://127.0.0.1.example"}, "base_url", LOOPBACK_ONLY),
        ({"base_url": "http://[2001:db8::1]"}, "base_url", LOOPBACK_ONLY),
        ({"base_url": "http://[::ffff:127.0.0.1]"}, "base_url", LOOPBACK_ONLY),
        ({"base_url": "http://2130706433"}, "base_url", LOOPBACK_ONLY),
        ({"mode": "stream"}, "mode", "'stream' is not one of auto, window, latest"),
        ({"auth_mode": "basic"}, "auth_mode", "'basic' is not one of mtls, bearer, none"),
        ({"auth_mode": "mtls", "client_key": __file__}, "client_cert",
         "is missing (mTLS needs both client_cert and client_key)"),
        ({"auth_mode": "mtls", "client_cert": __file__}, "client_key",
         "is missing (mTLS needs both client_cert and client_key)"),
        ({"client_cert": __file__}, "client_key",
         "is missing (mTLS needs both client_cert and client_key)"),
        ({"client_key": __file__}, "client_cert",
         "is missing (mTLS needs both client_cert and client_key)"),
        (PAIR | {"auth_mode": "mtls", "base_url": "http://localhost"}, "auth_mode",
         "mtls needs an https base_url"),
        ({"auth_mode": "bearer"}, "credential_ref",
         "is missing (auth_mode bearer needs it where INTERNAL_SERVICE_TOKEN is not set)"),
        ({"auth_mode": "none", "credential_ref": "env:X"}, "auth_mode",
         "none contradicts credential_ref"),
        ({"auth_mode": "none", "client_cert": __file__, "client_key": __file__}, "auth_mode",
         "none contradicts client_cert"),
        ({"credential_ref": "the-token-itself"}, "credential_ref", BAD_REFERENCE),
        ({"credential_ref": "env:A B"}, "credential_ref", BAD_REFERENCE),
        ({"credential_ref": "file:token"}, "credential_ref", BAD_REFERENCE),
        ({"credential_ref": "file:/a\x00b"}, "credential_ref", BAD_REFERENCE),
        ({"credential_ref": "credential:../token"}, "credential_ref", BAD_REFERENCE),
        ({"credential_ref": "vault:token"}, "credential_ref", BAD_REFERENCE),
        ({"server_name": "jp 1"}, "server_name", "needs a host name or an IP address"),
        ({"proxy": "socks5://proxy"}, "proxy", "must begin with https:// (or http://)"),
        ({"proxy": "https://proxy"}, "proxy", "must be http://host:port"),
        ({"proxy": "http://proxy/path"}, "proxy", "must be http://host:port"),
        ({"proxy": "http://user:word@proxy"}, "proxy",
         "must not hold a user name or password"),
        ({"base_url": "http://127.0.0.1", "proxy": "http://proxy"}, "proxy",
         "needs an https base_url: it would see the token and the answers"),
        ({"account_rate_bits_per_second": -1}, "account_rate_bits_per_second", "must be >= 0"),
        ({"timeout_seconds": 0}, "timeout_seconds", "must be > 0"),
        ({"timeout_seconds": 301}, "timeout_seconds", "must be <= 300"),
        ({"timeout_seconds": "soon"}, "timeout_seconds", "'soon' is not a number"),
        ({"timeout_seconds": float("nan")}, "timeout_seconds", "nan is not a finite number"),
        ({"timeout_seconds": True}, "timeout_seconds", "must be a number, not true or false"),
        ({"collect_interval_seconds": -1}, "collect_interval_seconds", "must be >= 0"),
        ({"enabled": "perhaps"}, "enabled", "'perhaps' is not true or false"),
        ({"allow_http": []}, "allow_http", "the value is not true or false"),
        ({"region": "j\x00p"}, "region", "must not hold control characters"),
        ({"expected_node_id": "n" * 256}, "expected_node_id", "must have at most 255 characters"),
        ({"base_urll": "x"}, "base_urll", "unknown key (did you mean 'base_url'?)"),
        ({"zzz": "x"}, "zzz", "unknown key"),
        ({"x\ny": "x"}, "'x\\ny'", "unknown key"),
    ],
)  # fmt: skip
def test_a_wrong_key_is_one_line_that_names_source_and_key(
    keys: dict[str, Any], key: str, reason: str
) -> None:
    """The error says which source, which key, where it stands and what is wrong."""
    assert sources_error(entry(**keys)) == f"{JP_1}: {key} (environment): {reason}"


@pytest.mark.parametrize(
    ("source_id", "shown", "reason"),
    [
        ("", "", "is missing"),
        (None, "", "is missing"),
        (7, "", "must be a string"),
        ("jp 1", " 'jp 1'", "must not hold white space or control characters"),
        ("jp\n1", " 'jp\\n1'", "must not hold white space or control characters"),
        ("jp\u00a01", " 'jp\\xa01'", "must not hold white space or control characters"),
        ("x" * 129, f" '{'x' * 64}'", "must have at most 128 characters"),
    ],
)
def test_a_wrong_id_is_named_by_the_place_in_the_list(
    source_id: Any, shown: str, reason: str
) -> None:
    """A source without a usable id is found by its position, which counts from 0."""
    text = sources_error(entry(), {"source_id": source_id, "base_url": "https://x"})
    assert text == f"EXPORTER_SOURCES_JSON[1]{shown}: source_id (environment): {reason}"


def test_an_id_may_be_as_long_as_128_characters() -> None:
    """The limit itself is still fine."""
    assert sources_from(entry("x" * 128, base_url="https://x"))[0].source_id == "x" * 128


def test_a_wrong_key_in_the_file_names_the_file(tmp_path: Path) -> None:
    """The error names the table by its number and its id, the key and the file."""
    path = written(
        tmp_path,
        '[[sources]]\nsource_id = "us-1"\nbase_url = "https://us-1"\n'
        '[[sources]]\nsource_id = "jp-1"\nbase_url = "https://jp-1"\ntimeout_seconds = 0.0',
    )
    expected = f"sources[1] 'jp-1': timeout_seconds ({path}): must be > 0"
    assert error_of(str(path), {}) == expected


def test_an_unknown_key_is_told_before_the_missing_one() -> None:
    """A misspelled key is both, and the misspelling is the cause."""
    entries = in_environment({"source_id": "jp-1", "base_uri": "https://jp-1"})
    assert problems_of(None, entries) == [
        f"{JP_1}: base_uri (environment): unknown key (did you mean 'base_url'?)",
        f"{JP_1}: base_url (environment): is missing",
    ]


@pytest.mark.parametrize(
    "url",
    [
        "https://jp-1.example",
        "https://10.0.0.1:8443",
        "https://[2001:db8::1]:8443/exporter",
        "http://localhost:8080",
        "http://LOCALHOST",
        "http://127.0.0.1",
        "http://127.8.9.10:1",
        "http://[::1]:8080",
    ],
)
def test_encrypted_or_loopback_urls_are_accepted(url: str) -> None:
    """Encrypted anywhere, plain http on this machine."""
    assert sources_from(entry(base_url=url))[0].base_url == url


def test_http_elsewhere_needs_a_word_of_consent() -> None:
    """allow_http = true makes plain http legal for that source."""
    assert sources_from(entry(base_url="http://jp-1.example", allow_http=True))[0].allow_http


def test_a_pin_is_hexadecimal_or_base64_one_or_several() -> None:
    """As tools print them; the configuration holds one form."""
    encoded = base64.b64encode(bytes.fromhex(PIN)).decode()
    forms = {
        "upper case": PIN.upper(),
        "base64": encoded,
        "curl": f"sha256//{encoded}",
        "list": [PIN],
    }
    for given in forms.values():
        (source,) = pinned(given)
        assert source.pinned_sha256 == (PIN,)
    assert pinned([])[0].pinned_sha256 == ()
    for wrong in ("abc", PIN[:-2], PIN + "00", "g" * 64, 5, [5]):
        with pytest.raises(ConfigurationError, match="pinned_sha256"):
            pinned(wrong)


def test_a_pin_needs_encryption() -> None:
    """Without TLS nobody shows a key."""
    with pytest.raises(ConfigurationError, match=r"pinned_sha256.*needs an https base_url"):
        pinned(PIN, base_url="http://127.0.0.1:8080")


def pinned(pin: object, base_url: str = "https://jp-1") -> tuple[Source, ...]:
    """Return the sources of a configuration with one pinned source."""
    entry = {"source_id": "jp-1", "base_url": base_url, "pinned_sha256": pin}
    return from_environment(EXPORTER_SOURCES_JSON=json.dumps([entry])).sources
