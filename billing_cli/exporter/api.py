"""The values that jobs exchange with this package: a request, and what a source answered."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from billing_cli.config.source import Source
    from billing_cli.core.model import NodeIdentity, Snapshot

Contract = Literal["window", "latest"]
ErrorCode = Literal[
    "address",
    "credentials",
    "cursor",
    "failed",
    "file",
    "html",
    "http_status",
    "invalid_answer",
    "not_json",
    "redirect",
    "timeout",
    "tls",
    "too_large",
    "too_many_streams",
    "unreachable",
    "wrong_identity",
]
"""Why a source failed, for programs. Stable; each code is explained in docs/exporter.md."""


class ExporterError(Exception):
    """A source cannot be used. The text is a one-line reason without secrets.

    `unreachable` is true where no exporter answered (connect, TLS, timeout, 502/503/504), false
    where one answered and the answer was wrong.
    """

    def __init__(
        self, reason: str, *, code: ErrorCode = "failed", unreachable: bool = False
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.code: ErrorCode = code
        self.unreachable = unreachable


class CredentialsError(ExporterError):
    """A token, certificate, key or CA bundle of the source cannot be used."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason, code="credentials")


class AddressError(ExporterError):
    """The configured `base_url` or `proxy` must not, or cannot, be used."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason, code="address")


@dataclass(frozen=True, slots=True)
class FetchRequest:
    """One bounded step wanted from a source.

    `since` is the watermark (its snapshot is wanted again, as proof of continuity), or where to
    begin; snapshots at or after `until` are not wanted. `max_samples` bounds the step softly: it
    ends at a minute boundary with at least one whole minute after the minute of `since`.
    `page_limit` is the most snapshots that are asked for in one page. `has_watermark` says that
    this source had snapshots before, so that 404 is a failure and not "no snapshot yet".
    `renamed` gives the present identity of a node by each stored id that it had before.
    """

    source: Source
    since: datetime
    until: datetime
    max_samples: int
    page_limit: int
    has_watermark: bool = False
    renamed: Mapping[str, NodeIdentity] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Fetched:
    """What a source answered.

    `snapshots` are oldest first, strictly rising, all of `identity`, before `until` (contract
    `latest`: the one on offer, whatever its minute), and every minute among them is complete.
    `complete` is true where the source has nothing more before `until`. `identity` is None where
    it has no snapshot yet. `notes` are one-line remarks for the operator. What `is_from_file` may
    lack the snapshot at the watermark, although nothing was lost.
    """

    contract: Contract
    identity: NodeIdentity | None
    snapshots: tuple[Snapshot, ...]
    complete: bool
    notes: tuple[str, ...] = ()
    is_from_file: bool = False
