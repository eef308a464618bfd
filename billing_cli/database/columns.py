"""The kinds of columns that the declared tables are made of."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, ForeignKey, Identity, Integer, Text, func
from sqlalchemy import text as sql_text
from sqlalchemy.dialects.postgresql import BYTEA, TIMESTAMP, UUID

# For tables of which every row may change in every minute. Rows take less than half of a page, so
# that their next versions find room next to them and no index has to change; the versions before
# are cleared away by the update after that. Vacuum is for when that does not keep up: when there
# are more dead rows than live ones, and then at once.
CHANGED_EVERY_MINUTE = {
    "fillfactor": 45,
    "autovacuum_vacuum_scale_factor": 1,
    "autovacuum_vacuum_cost_delay": 0,
}


def text(name: str, comment: str | None = None) -> Column[str]:
    """Return a column of text that is always there."""
    return Column(name, Text, nullable=False, comment=comment)


def reason(name: str) -> Column[str]:
    """Return a column of text that is empty until a reason is given."""
    return Column(name, Text, nullable=False, server_default=sql_text("''"))


def moment(name: str, comment: str | None = None) -> Column[object]:
    """Return a column of time that is always there."""
    return Column(name, TIMESTAMP(timezone=True), nullable=False, comment=comment)


def maybe_moment(name: str, comment: str | None = None) -> Column[object]:
    """Return a column of time, or none."""
    return Column(name, TIMESTAMP(timezone=True), comment=comment)


def now(name: str) -> Column[object]:
    """Return a column of time that is the transaction's unless another is given."""
    return Column(name, TIMESTAMP(timezone=True), nullable=False, server_default=func.now())


def bytes_(name: str, comment: str | None = None) -> Column[int]:
    """Return a column for a number of bytes, or of rows."""
    return Column(name, BigInteger, nullable=False, comment=comment)


def hash_(name: str, comment: str | None = None) -> Column[bytes]:
    """Return a column for 32 bytes: a SHA-256 hash, or a salt."""
    return Column(name, BYTEA, nullable=False, comment=comment)


def uuid(name: str, comment: str | None = None) -> Column[object]:
    """Return a column for an identifier that is always there."""
    return Column(name, UUID, nullable=False, comment=comment)


def count(name: str, comment: str | None = None) -> Column[int]:
    """Return a column for a small number that starts at 0."""
    return Column(name, Integer, nullable=False, server_default=sql_text("0"), comment=comment)


def identity(name: str) -> Column[int]:
    """Return a column for a key that the database counts up."""
    return Column(name, BigInteger, Identity(always=True), primary_key=True)


def stream() -> Column[int]:
    """Return a column for a stream that must be there."""
    return Column("stream_id", BigInteger, ForeignKey("billing.streams.stream_id"), nullable=False)


def evidence() -> tuple[Column[int], ...]:
    """Return a column for a stream's totals at both ends of what it moved."""
    return (
        bytes_("uplink_start"),
        bytes_("uplink_end"),
        bytes_("downlink_start"),
        bytes_("downlink_end"),
    )
