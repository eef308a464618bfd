"""The one declaration of our tables, schema `billing`: what migrations lead to.

Only migrations import this module, because SQLAlchemy is slow to load and no run needs it.
The tables that accounts.svc.plus owns are declared in `shared_metadata`.
"""

from __future__ import annotations

from sqlalchemy import (
    DDL,
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    Identity,
    Index,
    Integer,
    MetaData,
    Numeric,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    event,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB, TIMESTAMP, UUID

from billing_cli.store.functions import FUNCTIONS, partitions_of
from billing_cli.store.schema import APPEND_ONLY_TABLES, MAKE_PARTITIONS_NOW, SCHEMA

# PostgreSQL's own habits, so that a table made by hand from the same columns has the same names.
NAMING_CONVENTION = {
    "pk": "%(table_name)s_pkey",
    "uq": "%(table_name)s_%(column_0_N_name)s_key",
    "fk": "%(table_name)s_%(column_0_N_name)s_fkey",
    "ck": "%(table_name)s_%(constraint_name)s_check",
    "ix": "%(table_name)s_%(column_0_N_name)s_idx",
}

metadata = MetaData(schema=SCHEMA, naming_convention=NAMING_CONVENTION)


def _text(name: str, comment: str | None = None) -> Column[str]:
    return Column(name, Text, nullable=False, comment=comment)


def _reason(name: str) -> Column[str]:
    return Column(name, Text, nullable=False, server_default=text("''"))


def _moment(name: str, comment: str | None = None) -> Column[object]:
    return Column(name, TIMESTAMP(timezone=True), nullable=False, comment=comment)


def _maybe_moment(name: str, comment: str | None = None) -> Column[object]:
    return Column(name, TIMESTAMP(timezone=True), comment=comment)


def _now(name: str) -> Column[object]:
    return Column(name, TIMESTAMP(timezone=True), nullable=False, server_default=func.now())


def _bytes(name: str, comment: str | None = None) -> Column[int]:
    return Column(name, BigInteger, nullable=False, comment=comment)


def _uuid(name: str, comment: str | None = None) -> Column[object]:
    return Column(name, UUID, nullable=False, comment=comment)


def _count(name: str, comment: str | None = None) -> Column[int]:
    return Column(name, Integer, nullable=False, server_default=text("0"), comment=comment)


def _identity(name: str) -> Column[int]:
    return Column(name, BigInteger, Identity(always=True), primary_key=True)


def _stream() -> Column[int]:
    return Column("stream_id", BigInteger, ForeignKey("billing.streams.stream_id"), nullable=False)


def _evidence() -> tuple[Column[int], ...]:
    return (
        _bytes("uplink_start"),
        _bytes("uplink_end"),
        _bytes("downlink_start"),
        _bytes("downlink_end"),
    )


sources = Table(
    "sources",
    metadata,
    Column("source_id", Text, primary_key=True),
    _text("env"),
    _text("node_id"),
    _text("stored_node_id", "As in the shared tables: env:node_id, or node_id without an env."),
    _text("contract"),
    _moment("first_snapshot_at"),
    _moment("watermark", "collected_at of the last snapshot applied."),
    _now("updated_at"),
    UniqueConstraint("stored_node_id"),
    CheckConstraint("contract IN ('window', 'latest')", name="contract"),
    CheckConstraint("first_snapshot_at <= watermark", name="watermark"),
    comment="How far each source has been applied. A node belongs to one source.",
    postgresql_with={"fillfactor": 50},
)

streams = Table(
    "streams",
    metadata,
    _identity("stream_id"),
    _text("stored_node_id"),
    _text("inbound_tag"),
    _uuid("sample_uuid", "As the exporter wrote it: an account's uuid or its proxy uuid."),
    Column("account_uuid", UUID, comment="No foreign key: evidence outlives the account."),
    _text("first_sight"),
    _moment("first_seen_at"),
    _bytes("first_uplink_total"),
    _bytes("first_downlink_total"),
    _moment("seen_at", "The snapshot in which the totals last changed."),
    _bytes("uplink_total"),
    _bytes("downlink_total"),
    _count("reset_epoch", "Counter restarts seen so far."),
    _maybe_moment("absent_since", "The last snapshot that held it, where a later one did not."),
    UniqueConstraint("stored_node_id", "inbound_tag", "sample_uuid"),
    CheckConstraint("first_sight IN ('baseline', 'new', 'taken_over')", name="first_sight"),
    CheckConstraint("uplink_total >= 0", name="uplink_total"),
    CheckConstraint("downlink_total >= 0", name="downlink_total"),
    Index("streams_account", "account_uuid", "stored_node_id"),
    Index("streams_unresolved", "stored_node_id", postgresql_where=text("account_uuid IS NULL")),
    comment="One counter pair each: where its evidence stands, and whose it is.",
    postgresql_with={"fillfactor": 60},
)

usage_records = Table(
    "usage_records",
    metadata,
    _moment("bucket_start", "The UTC minute that the bytes count in."),
    Column("stream_id", BigInteger, nullable=False, comment="No foreign key: streams stay."),
    _moment("from_at"),
    _count("revision", "0 as collected; above 0 a correction."),
    Column("reset_epoch", Integer, nullable=False),
    _moment("to_at"),
    *_evidence(),
    _uuid("account_uuid"),
    Column("kind", Text, nullable=False, server_default=text("'delta'")),
    PrimaryKeyConstraint("bucket_start", "stream_id", "from_at", "revision"),
    CheckConstraint("kind IN ('delta', 'pending', 'released', 'correction')", name="kind"),
    CheckConstraint(
        "kind = 'correction' OR (uplink_end >= uplink_start AND downlink_end >= downlink_start)",
        name="growth",
    ),
    comment="Append-only evidence: what a stream moved in one minute. Bytes are end - start.",
    postgresql_partition_by="RANGE (bucket_start)",
)

pending_usage = Table(
    "pending_usage",
    metadata,
    _stream(),
    _moment("from_at"),
    Column("reset_epoch", Integer, nullable=False),
    _moment("to_at"),
    *_evidence(),
    _maybe_moment("billed_at", "When it became usage records."),
    PrimaryKeyConstraint("stream_id", "from_at"),
    comment="Usage of streams whose account is unknown, merged per epoch until it appears.",
    postgresql_with={"fillfactor": 60},
)

held_deltas = Table(
    "held_deltas",
    metadata,
    _identity("held_id"),
    _stream(),
    _moment("bucket_start"),
    _moment("from_at"),
    Column("reset_epoch", Integer, nullable=False),
    _moment("to_at"),
    *_evidence(),
    _now("found_at"),
    Column("state", Text, nullable=False, server_default=text("'held'")),
    _maybe_moment("decided_at"),
    _reason("reason"),
    UniqueConstraint("stream_id", "from_at"),
    CheckConstraint("state IN ('held', 'released', 'rejected')", name="state"),
    Index("held_deltas_waiting", "stream_id", postgresql_where=text("state = 'held'")),
    comment="Deltas above what a line can carry, uncharged until an operator decides.",
)

charges = Table(
    "charges",
    metadata,
    # The columns of fixed width come first: between others they would take up to 7 bytes more.
    _moment("bucket_start"),
    _bytes("included_bytes", "Paid from the quota; negative where an adjustment gives back."),
    _bytes("rated_bytes", "Beyond the quota; negative where an adjustment gives back."),
    _bytes("quota_before"),
    _now("created_at"),
    _uuid("account_uuid"),
    Column("ledger_id", UUID, nullable=False, comment="The id in public.billing_ledger."),
    _uuid("run_id"),
    Column("adjusts", UUID, comment="The charge that this row takes back or prices anew."),
    _text("entry_type"),
    _text("stored_node_id"),
    _text("region"),
    _text("line_code"),
    Column("price_per_byte", Numeric, nullable=False),
    Column("multiplier", Numeric, nullable=False),
    Column("amount_delta", Numeric(30, 9), nullable=False),
    Column("balance_before", Numeric(30, 9), nullable=False),
    _text("pricing_rule_version"),
    _reason("reason"),
    PrimaryKeyConstraint("bucket_start", "account_uuid", "ledger_id"),
    CheckConstraint("entry_type IN ('traffic_charge', 'traffic_adjustment')", name="entry_type"),
    comment="Append-only evidence of each ledger row: what was included, rated, at which price.",
    postgresql_partition_by="RANGE (bucket_start)",
)

gaps = Table(
    "gaps",
    metadata,
    _identity("gap_id"),
    _text("source_id"),
    _text("kind"),
    _moment("from_at"),
    _maybe_moment("to_at", "Null while it lasts."),
    _count("streams", "How many streams it touches, where that is known."),
    _now("found_at"),
    _maybe_moment("resolved_at"),
    _reason("resolution"),
    UniqueConstraint("source_id", "kind", "from_at"),
    CheckConstraint("kind IN ('late', 'reset', 'history_lost', 'stalled')", name="kind"),
    comment="Stretches of a source's time that its history does not plainly cover.",
)

runs = Table(
    "runs",
    metadata,
    Column("run_id", UUID, primary_key=True),
    _text("job"),
    _text("status"),
    _moment("started_at"),
    _moment("finished_at"),
    _text("host"),
    _text("version"),
    Column("error", Text),
    Column("result", JSONB, nullable=False, comment="The result object as printed."),
    CheckConstraint("status IN ('ok', 'partial', 'error', 'busy')", name="status"),
    Index("runs_started", text("started_at DESC")),
    comment="The journal: one row for each run.",
)

totals = Table(
    "totals",
    metadata,
    Column("job", Text, primary_key=True),
    _text("last_status"),
    _moment("last_started_at"),
    _moment("last_finished_at"),
    _maybe_moment("last_success_at", "The end of the last run that was ok or partial."),
    *(
        _bytes(name)
        for name in (
            "runs",
            "failed_runs",
            "samples",
            "written_minutes",
            "replayed_minutes",
            "included_bytes",
            "returned_included_bytes",
            "charged_bytes",
            "returned_charged_bytes",
        )
    ),
    Column("charged_amount", Numeric(30, 9), nullable=False),
    Column("returned_amount", Numeric(30, 9), nullable=False),
    *(
        _bytes(name)
        for name in ("corrections", "resets", "gaps", "rejected_samples", "held_deltas")
    ),
    Column("violations", BigInteger, comment="What the last audit found; null for other jobs."),
    Column("notices", BigInteger, comment="What the last audit found; null for other jobs."),
    comment="One row a job: what all its runs did together, and how the last one ended.",
    postgresql_with={"fillfactor": 50},
)

for _statement in (f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}", *FUNCTIONS):
    event.listen(metadata, "before_create", DDL(_statement))  # type: ignore[no-untyped-call]
for _name in APPEND_ONLY_TABLES:
    for _statement in partitions_of(_name):
        event.listen(
            metadata.tables[f"{SCHEMA}.{_name}"],
            "after_create",
            DDL(_statement),  # type: ignore[no-untyped-call]
        )
event.listen(metadata, "after_create", DDL(MAKE_PARTITIONS_NOW))  # type: ignore[no-untyped-call]
