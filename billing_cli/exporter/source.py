"""A configured exporter endpoint, as the rest of the program sees it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from decimal import Decimal

Mode = Literal["auto", "window", "latest"]
AuthMode = Literal["mtls", "bearer", "none"]
Contract = Literal["window", "latest"]


@dataclass(frozen=True, slots=True)
class Source:
    """One exporter. Times are seconds; paths are as configured and read at every run.

    `credential_ref` names the Bearer token (`env:NAME`, `file:/path`, `credential:NAME`); the
    token itself is never part of this value, so its repr can be logged. A limit that is None
    is the one that is configured for all sources. `pinned_sha256` are digests of
    the public keys that the exporter may have, hexadecimal; any, where there are none.
    """

    source_id: str
    base_url: str
    enabled: bool = True
    expected_node_id: str | None = None
    expected_env: str | None = None
    mode: Mode = "auto"
    auth_mode: AuthMode = "none"
    credential_ref: str | None = None
    client_cert: str | None = None
    client_key: str | None = None
    ca_bundle: str | None = None
    server_name: str | None = None
    timeout_seconds: float = 15.0
    collect_interval_seconds: float = 0.0
    region: str | None = None
    allow_http: bool = False
    proxy: str | None = None
    account_rate_bits_per_second: int | None = None
    line_rate_bits_per_second: int | None = None
    max_streams_per_account: int | None = None
    max_new_streams_per_hour: int | None = None
    max_unresolved_streams_per_hour: int | None = None
    max_daily_charge: Decimal | None = None
    pinned_sha256: tuple[str, ...] = ()
