"""One source: its keys, their types, and which of them conflict with others."""

from __future__ import annotations

from base64 import b64decode
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, SecretStr

from billing_cli.addresses import check_host, is_loopback, split_url
from billing_cli.config.fields import Maximum, Number, Rate, StreamCount, Text
from billing_cli.references import check_path, check_reference

if TYPE_CHECKING:
    from collections.abc import Iterator

AuthMode = Literal["mtls", "bearer", "none"]

MAX_SOURCE_ID_CHARACTERS = 128
MAX_TIMEOUT_SECONDS = 300
MAX_INTERVAL_SECONDS = 86_400

LOOPBACK_ONLY = "http is for loopback hosts only (use https, or a source with allow_http = true)"
HEX_CHARACTERS = 64
NOT_A_PIN = "must be SHA-256 digests, of 64 hexadecimal digits or in base64"


@dataclass(frozen=True, slots=True)
class Source:
    """One exporter: its keys, their types and defaults. Made by `registry.sources_of`.

    Times are seconds; paths are as configured and read at every run. `auth_mode` is None only until
    it is resolved. `credential_ref` names the Bearer token (`env:NAME`, `file:/path`,
    `credential:NAME`); the token itself is never part of this value, so its repr can be logged. A
    limit that is None is the one that is configured for all sources. `pinned_sha256` are digests of
    the public keys that the exporter may have, hexadecimal; any, where there are none.
    """

    __pydantic_config__: ClassVar = ConfigDict(extra="forbid", hide_input_in_errors=True)

    source_id: Annotated[
        str, Field(max_length=MAX_SOURCE_ID_CHARACTERS), AfterValidator(check_source_id)
    ]
    base_url: Annotated[str, AfterValidator(check_url)]
    enabled: bool = True
    expected_node_id: Text | None = None
    expected_env: Text | None = None
    mode: Literal["auto", "window", "latest"] = "auto"
    auth_mode: AuthMode | None = None
    credential_ref: Annotated[str, AfterValidator(check_reference)] | None = None
    client_cert: FilePath | None = None
    client_key: FilePath | None = None
    ca_bundle: FilePath | None = None
    server_name: Annotated[str, AfterValidator(check_host)] | None = None
    timeout_seconds: Annotated[Number, Field(gt=0, le=MAX_TIMEOUT_SECONDS)] = 15.0
    collect_interval_seconds: Annotated[Number, Field(ge=0, le=MAX_INTERVAL_SECONDS)] = 0.0
    region: Text | None = None
    allow_http: bool = False
    proxy: Annotated[str, AfterValidator(check_proxy)] | None = None
    account_rate_bits_per_second: Rate | None = None
    line_rate_bits_per_second: Rate | None = None
    max_streams_per_account: StreamCount | None = None
    max_new_streams_per_hour: StreamCount | None = None
    max_unresolved_streams_per_hour: StreamCount | None = None
    max_daily_charge: Maximum | None = None
    pinned_sha256: Annotated[tuple[str, ...], BeforeValidator(check_pins)] = ()


def check_secret_url(value: SecretStr) -> SecretStr:
    """Return a URL that is a secret, and so goes unencrypted to this machine only.

    Raises ValueError as `check_url` does.
    """
    text = check_url(value.get_secret_value().strip())
    if not _is_encrypted_or_local(text):
        raise ValueError("http is for loopback hosts only (use https)")
    return SecretStr(text)


def check_exporter_url(text: str) -> str:
    """Return the URL of an exporter without other keys. Raises ValueError as `check_url` does."""
    url = check_url(text)
    if not _is_encrypted_or_local(url):
        raise ValueError(LOOPBACK_ONLY)
    return url


FilePath = Annotated[Text, AfterValidator(check_path)]


def contradictions(source: Source, *, has_shared_token: bool) -> Iterator[tuple[str, str]]:
    """Yield the keys that conflict with others, each with the reason.

    `has_shared_token` says whether a token is configured for sources that have none of their own.
    """
    encrypted = urlsplit(source.base_url).scheme == "https"
    if not (source.allow_http or _is_encrypted_or_local(source.base_url)):
        yield "base_url", LOOPBACK_ONLY
    if source.proxy is not None and not (encrypted or source.allow_http):
        yield "proxy", "needs an https base_url: it would see the token and the answers"
    if source.pinned_sha256 and not encrypted:
        yield "pinned_sha256", "needs an https base_url"
    if source.auth_mode == "mtls" and not encrypted:
        yield "auth_mode", "mtls needs an https base_url"
    yield from _missing_certificate(source)
    if source.auth_mode == "bearer" and source.credential_ref is None and not has_shared_token:
        yield (
            "credential_ref",
            "is missing (auth_mode bearer needs it where INTERNAL_SERVICE_TOKEN is not set)",
        )
    if source.auth_mode == "none" and source.credential_ref is not None:
        yield "auth_mode", "none contradicts credential_ref"
    if source.auth_mode == "none" and source.client_cert is not None:
        yield "auth_mode", "none contradicts client_cert"


def resolved_auth_mode(source: Source, *, has_shared_token: bool) -> AuthMode:
    """Return the configured mode, else the one that the source's credentials stand for."""
    if source.auth_mode is not None:
        return source.auth_mode
    if source.client_cert is not None:
        return "mtls"
    if source.credential_ref is not None or has_shared_token:
        return "bearer"
    return "none"


def check_source_id(text: str) -> str:
    """Return the id as it is. Raises ValueError where it would be ambiguous in a log."""
    if not text.isprintable() or " " in text:
        raise ValueError("must not hold white space or control characters")
    return text


def check_url(text: str) -> str:
    """Return an http(s) URL without a slash at its end. Raises ValueError as `split_url` does."""
    split_url(text)
    return text.rstrip("/")


def check_proxy(text: str) -> str:
    """Return the URL of an HTTP proxy. Raises ValueError as `check_url` does."""
    parts = urlsplit(check_url(text))
    if parts.scheme != "http" or parts.path.strip("/"):
        raise ValueError("must be http://host:port")
    return text.rstrip("/")


def check_pins(value: Any) -> tuple[str, ...]:
    """Return pins, one or a list of them, in hexadecimal. Raises ValueError for what is none."""
    pins = [value] if isinstance(value, str) else value
    if not isinstance(pins, list | tuple):
        raise ValueError(NOT_A_PIN)  # noqa: TRY004 - pydantic's way
    return tuple(_pin(pin) for pin in pins)


def _pin(value: Any) -> str:
    try:
        text = value.removeprefix("sha256//")
        is_hex = len(text) == HEX_CHARACTERS
        digest = bytes.fromhex(text) if is_hex else b64decode(text, validate=True)
    except (AttributeError, ValueError):
        raise ValueError(NOT_A_PIN) from None
    if len(digest) * 2 != HEX_CHARACTERS:
        raise ValueError(NOT_A_PIN)
    return digest.hex()


SecretUrl = Annotated[SecretStr, AfterValidator(check_secret_url)]


def _missing_certificate(source: Source) -> Iterator[tuple[str, str]]:
    wanted = source.auth_mode == "mtls" or source.client_cert or source.client_key
    for key in ("client_cert", "client_key"):
        if wanted and getattr(source, key) is None:
            yield key, "is missing (mTLS needs both client_cert and client_key)"


def _is_encrypted_or_local(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme == "https" or is_loopback(parts.hostname or "")
