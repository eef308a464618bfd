"""The tables of schema `public` that accounts.svc.plus owns, as its contract describes them.

Declared apart from ours: no migration ever alters, drops or re-keys them. A fresh developer
database gets them from here; where they exist, their shape is compared with this one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Index,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql import UUID
from sqlalchemy.schema import CreateIndex, CreateTable

from billing_cli.database import columns

if TYPE_CHECKING:
    from sqlalchemy.sql.ddl import ExecutableDDLElement

shared_metadata = MetaData(schema="public")


def create_if_missing(table: Table) -> str:
    """Return one statement that creates the table with its indexes unless it is there.

    Unlike CREATE TABLE IF NOT EXISTS it leaves the indexes of an existing table alone, and it
    needs no right to create anything where there is nothing to do.
    """
    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
    elements: list[ExecutableDDLElement] = [CreateTable(table)]
    elements += [
        CreateIndex(index) for index in sorted(table.indexes, key=lambda index: str(index.name))
    ]
    body = "\n".join(f"{str(element.compile(dialect=dialect)).strip()};" for element in elements)
    return f"DO $create$ BEGIN IF to_regclass('{table}') IS NULL THEN\n{body}\nEND IF; END $create$"


def _account(*, primary_key: bool = False) -> Column[object]:
    owner = ForeignKey("public.users.uuid", ondelete="CASCADE")
    return Column("account_uuid", UUID, owner, primary_key=primary_key, nullable=False)


def _text(name: str, default: str | None = None) -> Column[str]:
    server_default = None if default is None else text(f"'{default}'")
    return Column(name, Text, nullable=False, server_default=server_default)


def _double(name: str) -> Column[float]:
    return Column(name, Double, nullable=False)


# Only uuid and proxy_uuid are read; the rest is what a made-up account needs, and is not verified.
_UNUSED = {"unused": True}

users = Table(
    "users",
    shared_metadata,
    Column("uuid", UUID, primary_key=True),
    Column("proxy_uuid", UUID, nullable=False),
    Column("username", Text, nullable=False, info=_UNUSED),
    Column("password", Text, nullable=False, info=_UNUSED),
    Column("email", Text, info=_UNUSED),
    Column("active", Boolean, info=_UNUSED),
)

traffic_stat_checkpoints = Table(
    "traffic_stat_checkpoints",
    shared_metadata,
    _text("node_id"),
    _account(),
    columns.bytes_("last_uplink_total"),
    columns.bytes_("last_downlink_total"),
    columns.moment("last_seen_at"),
    _text("xray_revision", ""),
    Column("reset_epoch", BigInteger, nullable=False, server_default=text("0")),
    columns.now("created_at"),
    columns.now("updated_at"),
    PrimaryKeyConstraint("node_id", "account_uuid"),
    postgresql_with=columns.CHANGED_EVERY_MINUTE,
)

traffic_minute_buckets = Table(
    "traffic_minute_buckets",
    shared_metadata,
    columns.moment("bucket_start"),
    _text("node_id"),
    _account(),
    _text("region", ""),
    _text("line_code", ""),
    columns.bytes_("uplink_bytes"),
    columns.bytes_("downlink_bytes"),
    columns.bytes_("total_bytes"),
    Column("multiplier", Double, nullable=False, server_default=text("1")),
    _text("rating_status", "pending"),
    _text("source_revision", ""),
    columns.now("created_at"),
    columns.now("updated_at"),
    PrimaryKeyConstraint("bucket_start", "node_id", "account_uuid", "region", "line_code"),
    Index("traffic_minute_buckets_account_idx", "account_uuid", text("bucket_start DESC")),
)

billing_ledger = Table(
    "billing_ledger",
    shared_metadata,
    Column("id", UUID, primary_key=True),
    _account(),
    columns.moment("bucket_start"),
    columns.moment("bucket_end"),
    _text("entry_type"),
    columns.bytes_("rated_bytes"),
    _double("amount_delta"),
    _double("balance_after"),
    _text("pricing_rule_version", ""),
    columns.now("created_at"),
    Index("billing_ledger_account_idx", "account_uuid", text("created_at DESC")),
)

account_quota_states = Table(
    "account_quota_states",
    shared_metadata,
    _account(primary_key=True),
    columns.bytes_("remaining_included_quota"),
    _double("current_balance"),
    Column("arrears", Boolean, nullable=False),
    _text("throttle_state", "normal"),
    _text("suspend_state", "active"),
    columns.maybe_moment("last_rated_bucket_at"),
    columns.moment("effective_at"),
    columns.now("updated_at"),
    postgresql_with=columns.CHANGED_EVERY_MINUTE,
)

account_billing_profiles = Table(
    "account_billing_profiles",
    shared_metadata,
    _account(primary_key=True),
    _text("package_name"),
    columns.bytes_("included_quota_bytes"),
    _double("base_price_per_byte"),
    _double("region_multiplier"),
    _double("line_multiplier"),
    _double("peak_multiplier"),
    _double("offpeak_multiplier"),
    _text("pricing_rule_version"),
    columns.now("created_at"),
    columns.now("updated_at"),
)

billing_source_sync_state = Table(
    "billing_source_sync_state",
    shared_metadata,
    Column("source_id", Text, primary_key=True),
    columns.maybe_moment("last_completed_until"),
    columns.maybe_moment("last_attempted_at"),
    columns.maybe_moment("last_succeeded_at"),
    _text("last_error", ""),
    columns.now("updated_at"),
    postgresql_with=columns.CHANGED_EVERY_MINUTE,
)
