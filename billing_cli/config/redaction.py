"""The secrets that this process has read, and texts without them."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, unquote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator

MASK = "***"
MIN_PATH_CHARACTERS = 8

_CONNINFO_PASSWORD = re.compile(
    r"\b(?:ssl)?password\s*=\s*(?:'((?:\\.|[^'\\])*)'|(\S+))", re.DOTALL
)

_secrets: list[str] = []


def redact(text: str) -> str:
    """Return the text with every registered secret replaced by `***`."""
    for secret in _secrets:
        if secret in text:
            text = text.replace(secret, MASK)
    return text


def register_secret(value: str) -> None:
    """Keep a value out of every log line from now on, also where it shows up escaped."""
    for form in (value, repr(value)[1:-1]):
        if form.strip() and form not in _secrets:
            _secrets.append(form)
    # The longest first: a password within a registered address must not break the address up
    # before the whole of it was found.
    _secrets.sort(key=len, reverse=True)


def register_database_url(url: str) -> None:
    """Register a connection string and the passwords in it, as written and as drivers see them."""
    register_secret(url)
    for password in _passwords_in(url):
        register_secret(password)


def register_url(url: str) -> None:
    """Register a URL that is a secret as a whole, and its path, which is what makes it one."""
    register_secret(url)
    with suppress(ValueError):
        path = urlsplit(url).path.strip("/")
        # Shorter ones may be ordinary words.
        if len(path) >= MIN_PATH_CHARACTERS:
            register_secret(path)


def forget_secrets() -> None:
    """Start over: for tests, where one process plays many."""
    _secrets.clear()


def _passwords_in(url: str) -> Iterator[str]:
    if "://" not in url:
        for quoted, plain in _CONNINFO_PASSWORD.findall(url):
            yield re.sub(r"\\(.)", r"\1", quoted or plain, flags=re.DOTALL)
        return
    try:
        parts = urlsplit(url)
        password = parts.password or ""
    except ValueError:
        return
    yield password
    yield unquote(password)
    for key, value in parse_qsl(parts.query):
        if key.endswith("password"):
            yield value
