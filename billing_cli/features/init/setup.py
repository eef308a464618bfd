"""What a new configuration is made of, and its text."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING

from billing_cli.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

BYTES_IN_A_GIB = 2**30
DATABASE_CREDENTIAL = "database-url"


@dataclass(frozen=True, slots=True)
class NewSource:
    """An exporter to collect from; `token` is its Bearer token, where it asks for one."""

    source_id: str
    base_url: str
    token: str | None = None

    @property
    def credential(self) -> str:
        """Return the name of the file that holds the token."""
        return re.sub(r"[^A-Za-z0-9_@:+-]", "-", self.source_id) + "-token"


@dataclass(frozen=True, slots=True)
class Setup:
    """The answers. Prices are money for a byte, quotas are bytes, `currency` is a label."""

    database_url: str
    sources: tuple[NewSource, ...]
    price_per_byte: Decimal
    included_quota_bytes: int = 0
    currency: str = ""

    def credentials(self) -> Mapping[str, str]:
        """Return the secrets by the names of their files."""
        tokens = {source.credential: source.token for source in self.sources if source.token}
        return {DATABASE_CREDENTIAL: self.database_url, **tokens}

    def text(self) -> str:
        """Return the configuration file, with comments; it holds no secret."""
        price = self.price_per_byte
        free = (
            ""
            if price
            else "\n# A price of 0 is charged, instead of being refused.\nallow_zero_price = true\n"
        )
        currency = f"# A label: nothing is converted.\ncurrency = {_text(self.currency)}\n"
        return HEAD.format(
            price=f"{price:f}",
            per_gib=f"{(price * BYTES_IN_A_GIB).normalize():f}",
            free=free,
            quota=self.included_quota_bytes,
            currency=f"\n{currency}" if self.currency else "",
        ) + "".join(_source_text(source) for source in self.sources)


HEAD = """\
# The configuration of billing. Every key: `billing config schema`, and the reference in the docs.
# What counts in the end, and where it comes from: `billing config show`.
# Editors complete it after `billing config schema > billing.schema.json`, by a first line
# #:schema ./billing.schema.json

# Secrets are files in the directory `credentials` next to this file, readable by root alone.
database_url_ref = "credential:database-url"

# Money for a byte beyond the included quota: {per_gib} for a GiB. Profiles of accounts go first.
price_per_byte = {price}
{free}{currency}
# Free bytes of an account whose profile includes none.
initial_included_quota_bytes = {quota}

# A new source is asked for its history, and charged from there. 0 begins with the first snapshot.
# initial_lookback_hours = 72

# Multipliers of the profiles apply in these hours.
# peak_hours = "18:00-23:30"
# peak_timezone = "Asia/Tokyo"
"""


def price_of(text: str, *, is_per_gib: bool) -> Decimal:
    """Return a price for a byte, exactly. Raises UsageError."""
    try:
        price = Decimal(text)
    except InvalidOperation:
        price = Decimal("NaN")
    if not price.is_finite() or price < 0:
        raise UsageError(f"{text!r} is not a price, such as 0.05")
    # Exact: a division by a power of two ends, and 30 more places fit.
    return price / BYTES_IN_A_GIB if is_per_gib else price


def sources_of(urls: Sequence[str], token_files: Sequence[str]) -> tuple[NewSource, ...]:
    """Return the sources of `ID=URL` and `ID=FILE`. Raises UsageError."""
    tokens = {}
    for source_id, path in _pairs(token_files, "--token-file", "ID=FILE"):
        try:
            with open(path, encoding="utf-8") as file:  # noqa: PTH123
                tokens[source_id] = file.read().strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not UTF-8"
            raise UsageError(f"--token-file {path}: {reason}") from None
        if not tokens[source_id]:
            raise UsageError(f"--token-file {path}: empty")
    sources = [
        NewSource(source_id, url, tokens.pop(source_id, None))
        for source_id, url in _pairs(urls, "--source", "ID=URL")
    ]
    for source_id in tokens:
        raise UsageError(f"--token-file {source_id}: there is no --source of that id")
    return tuple(sources)


def _pairs(texts: Sequence[str], option: str, form: str) -> list[tuple[str, str]]:
    pairs = []
    for text in texts:
        name, is_pair, value = text.partition("=")
        if not (is_pair and name and value):
            raise UsageError(f"{option} needs {form}, such as jp-1=https://jp-1.example.net:8443")
        pairs.append((name, value))
    return pairs


def _source_text(source: NewSource) -> str:
    lines = [
        "",
        "[[sources]]",
        f"source_id = {_text(source.source_id)}",
        f"base_url = {_text(source.base_url)}",
    ]
    if source.token:
        lines.append(f"credential_ref = {_text('credential:' + source.credential)}")
    lines += [
        "# Refuse the answer of any other node:",
        '# expected_node_id = "jp-1.example.net"',
        '# expected_env = "prod"',
        "",
    ]
    return "\n".join(lines)


def _text(value: str) -> str:
    """Return a TOML string: the escapes of JSON are legal in it."""
    return json.dumps(value)
