"""Which addresses may be connected to, and how a request's address is built."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from billing_cli.addresses import is_loopback, split_url
from billing_cli.exporter.api import AddressError

if TYPE_CHECKING:
    from billing_cli.config.source import Source

_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A checked base address.

    `label` is `host:port`, fit for reasons and notes. `secure` means that TLS protects it, and
    `exposed` that nothing does: plain HTTP to another host than loopback, or through a proxy.
    """

    base_url: str
    label: str
    secure: bool
    exposed: bool

    def url(self, path: str) -> str:
        """Return the address of a path below the base, which may have a path of its own."""
        return self.base_url + path


def endpoint_of(source: Source) -> Endpoint:
    """Return the source's endpoint.

    Raises AddressError where the address is none, holds user information, or is `http://` to
    another host than loopback, or through a proxy, without the source's `allow_http`. No reason
    repeats the address: what is wrong with it may be a password.
    """
    scheme, host, port, path = _parts(source.base_url, "base_url")
    exposed = scheme == "http" and not (is_loopback(host) and source.proxy is None)
    if exposed and not source.allow_http:
        where = "to another host than loopback" if source.proxy is None else "through a proxy"
        raise AddressError(f"base_url is http:// {where}; use https://")
    if scheme == "http" and source.auth_mode == "mtls":
        raise AddressError("auth_mode mtls needs an https:// base_url")
    label = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    base_url = f"{scheme}://{label}{path.rstrip('/')}"
    return Endpoint(base_url, label, secure=scheme == "https", exposed=exposed)


def proxy_url_of(source: Source) -> str | None:
    """Return the HTTP proxy that the source names, checked; None where it names none."""
    if source.proxy is None:
        return None
    scheme, host, port, path = _parts(source.proxy, "proxy")
    if scheme != "http" or path.strip("/"):
        raise AddressError("proxy is not of the form http://host:port")
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _parts(url: str, key: str) -> tuple[str, str, int, str]:
    """Return scheme, host without brackets, port and path of an absolute URL."""
    try:
        parts = split_url(url)
    except ValueError as error:
        raise AddressError(f"{key} {error}") from None
    port = parts.port or _DEFAULT_PORTS[parts.scheme]
    return parts.scheme, parts.hostname or "", port, parts.path
