"""Which URLs and hosts are taken, by the configuration and before anything is connected to."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import SplitResult, urlsplit

NOT_A_HOST = "is not a URL with a valid host and port"

# Narrower than what URLs allow, so that no two parsers read two hosts out of one text.
_HOST_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?", re.ASCII)
_AUTHORITY = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?", re.ASCII)
_LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))


def split_url(text: str) -> SplitResult:
    """Return the parts of an http(s) URL.

    Raises ValueError where it is none, or holds more than a host, a port and a path. The error
    does not repeat the text, which may hold a password.
    """
    if not (text.isascii() and text.isprintable()) or " " in text:
        raise ValueError("must be a URL in ASCII, without white space or control characters")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise ValueError(NOT_A_HOST) from None
    if parts.scheme not in {"http", "https"}:
        raise ValueError("must begin with https:// (or http://)")
    if "@" in parts.netloc:
        raise ValueError("must not hold a user name or password")
    if "?" in text or "#" in text:
        raise ValueError("must not hold a query or a fragment")
    if port == 0 or _AUTHORITY.fullmatch(parts.netloc) is None:
        raise ValueError(NOT_A_HOST)
    check_host(parts.hostname or "")
    return parts


def check_host(text: str) -> str:
    """Return a host name or address as it is. Raises ValueError where it is neither."""
    if _HOST_NAME.fullmatch(text) is None and _address_of(text) is None:
        raise ValueError("needs a host name or an IP address")
    return text


def is_loopback(host: str) -> bool:
    """Return whether a host name or address is this machine, whatever a resolver says."""
    address = _address_of(host)
    if address is None:
        return host == "localhost"
    return any(address in network for network in _LOOPBACK)


def _address_of(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
