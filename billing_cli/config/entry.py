"""One source as it is configured: its keys, their types, and what rules each other out."""

from __future__ import annotations

from base64 import b64decode
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    model_validator,
)

from billing_cli.addresses import check_host, is_loopback, split_url
from billing_cli.config.fields import Maximum, Number, Rate, StreamCount, Text
from billing_cli.exporter.source import AuthMode, Mode
from billing_cli.references import check_path, check_reference

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_SOURCE_ID_CHARACTERS = 128
MAX_TIMEOUT_SECONDS = 300
MAX_INTERVAL_SECONDS = 86_400

LOOPBACK_ONLY = "http is for loopback hosts only (use https, or a source with allow_http = true)"
HEX_CHARACTERS = 64
NOT_A_PIN = "must be SHA-256 digests, of 64 hexadecimal digits or in base64"


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


def contradictions(entry: SourceEntry, *, has_shared_token: bool) -> Iterator[tuple[str, str]]:
    """Yield the keys that conflict with others, each with the reason.

    `has_shared_token` says whether a token is configured for sources that have none of their own.
    """
    encrypted = urlsplit(entry.base_url).scheme == "https"
    if not (entry.allow_http or _is_encrypted_or_local(entry.base_url)):
        yield "base_url", LOOPBACK_ONLY
    if entry.proxy is not None and not (encrypted or entry.allow_http):
        yield "proxy", "needs an https base_url: it would see the token and the answers"
    if entry.pinned_sha256 and not encrypted:
        yield "pinned_sha256", "needs an https base_url"
    if entry.auth_mode == "mtls" and not encrypted:
        yield "auth_mode", "mtls needs an https base_url"
    yield from _missing_certificate(entry)
    if entry.auth_mode == "bearer" and entry.credential_ref is None and not has_shared_token:
        yield (
            "credential_ref",
            "is missing (auth_mode bearer needs it where INTERNAL_SERVICE_TOKEN is not set)",
        )
    if entry.auth_mode == "none" and entry.credential_ref is not None:
        yield "auth_mode", "none contradicts credential_ref"
    if entry.auth_mode == "none" and entry.client_cert is not None:
        yield "auth_mode", "none contradicts client_cert"


def resolved_auth_mode(entry: SourceEntry, *, has_shared_token: bool) -> AuthMode:
    """Return the configured mode, else the one that the source's credentials stand for."""
    if entry.auth_mode is not None:
        return entry.auth_mode
    if entry.client_cert is not None:
        return "mtls"
    if entry.credential_ref is not None or has_shared_token:
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


class SourceEntry(BaseModel):
    """The keys of a source. Empty strings and nulls count as not given."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    source_id: Annotated[
        str, Field(max_length=MAX_SOURCE_ID_CHARACTERS), AfterValidator(check_source_id)
    ]
    base_url: Annotated[str, AfterValidator(check_url)]
    enabled: bool = True
    expected_node_id: Text | None = None
    expected_env: Text | None = None
    mode: Mode = "auto"
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

    @model_validator(mode="before")
    @classmethod
    def _without_absent(cls, keys: dict[str, Any]) -> dict[str, Any]:
        known = cls.model_fields
        return {
            key: value
            for key, value in keys.items()
            if (value is not None and value != "") or key not in known
        }


def _missing_certificate(entry: SourceEntry) -> Iterator[tuple[str, str]]:
    wanted = entry.auth_mode == "mtls" or entry.client_cert or entry.client_key
    for key in ("client_cert", "client_key"):
        if wanted and getattr(entry, key) is None:
            yield key, "is missing (mTLS needs both client_cert and client_key)"


def _is_encrypted_or_local(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme == "https" or is_loopback(parts.hostname or "")
