"""The one declaration of our tables, schema `billing`: what migrations lead to.

Only migrations import this module, because SQLAlchemy is slow to load and no run needs it.
The tables that accounts.svc.plus owns are declared in `shared_metadata`.
"""

from __future__ import annotations

from sqlalchemy import (
    DDL,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Date,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Numeric,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    event,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, BYTEA, JSONB, UUID

from billing_cli.database import columns
from billing_cli.database.functions import FUNCTIONS, SEAL_TRIGGERS, partitions_of
from billing_cli.database.schema import APPEND_ONLY_TABLES, MAKE_PARTITIONS_NOW, SCHEMA

# PostgreSQL's own habits, so that a table made by hand from the same columns has the same names.
NAMING_CONVENTION = {
    "pk": "%(table_name)s_pkey",
    "uq": "%(table_name)s_%(column_0_N_name)s_key",
    "fk": "%(table_name)s_%(column_0_N_name)s_fkey",
    "ck": "%(table_name)s_%(constraint_name)s_check",
    "ix": "%(table_name)s_%(column_0_N_name)s_idx",
}

SURPLUS_COMMENT = "Charged because of a restart that was revoked: that much growth is not charged."
SEAL_STEP_COMMENT = "Which of its run's seals covers it; 0 before revision 0007."
CHECKS_COMMENT = "CRC-32 of each line: names what was changed, proves nothing."

metadata = MetaData(schema=SCHEMA, naming_convention=NAMING_CONVENTION)


sources = Table(
    "sources",
    metadata,
    Column("source_id", Text, primary_key=True),
    Column("env", Text),
    Column("node_id", Text),
    Column(
        "stored_node_id",
        Text,
        comment="As in the shared tables: env:node_id, or node_id without an env.",
    ),
    Column("contract", Text),
    columns.maybe_moment("first_snapshot_at"),
    columns.maybe_moment(
        "watermark", "collected_at of the last snapshot applied; null before the first one."
    ),
    columns.now("updated_at"),
    columns.maybe_moment(
        "samples_at",
        "The last snapshot applied that held samples; null where that is the watermark.",
    ),
    columns.maybe_moment("restarted_at", "The last restart of the node's process."),
    Column(
        "debt_bytes",
        BigInteger,
        nullable=False,
        server_default=text("0"),
        comment="What the node used beyond its plausibility credit.",
    ),
    columns.maybe_moment("debt_at", "When the debt was this large; it shrinks from then on."),
    columns.maybe_moment(
        "credit_since", "The baseline, from which the credit grows; null where it is full."
    ),
    Column(
        "former_nodes",
        ARRAY(Text),
        nullable=False,
        server_default=text("'{}'"),
        comment="Stored node ids whose counters continue under this node's.",
    ),
    Column("moved_to", Text, comment="The source that carries on what was collected from this."),
    columns.maybe_moment(
        "accepted_at",
        "When an operator let one run pass the limits of new streams; null once that run was.",
    ),
    Column(
        "accepted_reason",
        Text,
        nullable=False,
        server_default=text("''"),
        comment="Why the last such run may pass.",
    ),
    columns.maybe_moment(
        "accepted_until",
        "The watermark of that run: streams up to there do not count any more.",
    ),
    UniqueConstraint("stored_node_id"),
    CheckConstraint("contract IN ('window', 'latest')", name="contract"),
    CheckConstraint("first_snapshot_at <= watermark", name="watermark"),
    CheckConstraint(
        "num_nulls(env, node_id, stored_node_id, contract, first_snapshot_at, watermark) IN (0, 6)",
        name="known",
    ),
    comment="How far each source has been applied. A node belongs to one source. "
    "A run locks the rows of its sources.",
    postgresql_with={"fillfactor": 50},
)

streams = Table(
    "streams",
    metadata,
    columns.identity("stream_id"),
    columns.text("stored_node_id"),
    columns.text("inbound_tag"),
    columns.uuid("sample_uuid", "As the exporter wrote it: an account's uuid or its proxy uuid."),
    Column("account_uuid", UUID, comment="No foreign key: evidence outlives the account."),
    columns.text("origin"),
    columns.moment("first_seen_at"),
    columns.bytes_("first_uplink_total"),
    columns.bytes_("first_downlink_total"),
    columns.moment("seen_at", "The snapshot in which the totals last changed."),
    columns.bytes_("uplink_total"),
    columns.bytes_("downlink_total"),
    columns.count("reset_epoch", "Counter restarts seen so far."),
    columns.maybe_moment(
        "absent_since", "The last snapshot that held it, where a later one did not."
    ),
    Column(
        "before_uplink",
        BigInteger,
        comment="The total before the last restart, while that can be revoked.",
    ),
    Column(
        "before_downlink",
        BigInteger,
        comment="The total before the last restart, while that can be revoked.",
    ),
    Column("surplus_uplink", BigInteger, comment=SURPLUS_COMMENT),
    Column("surplus_downlink", BigInteger, comment=SURPLUS_COMMENT),
    Column(
        "state",
        Text,
        nullable=False,
        server_default=text("'active'"),
        comment="continued: goes on under another name; duplicate: held until an operator "
        "decides; ignored: never charged.",
    ),
    UniqueConstraint("stored_node_id", "inbound_tag", "sample_uuid"),
    CheckConstraint("origin IN ('baseline', 'new', 'taken_over')", name="origin"),
    CheckConstraint("uplink_total >= 0", name="uplink_total"),
    CheckConstraint("downlink_total >= 0", name="downlink_total"),
    CheckConstraint("(before_uplink IS NULL) = (before_downlink IS NULL)", name="before"),
    CheckConstraint("(surplus_uplink IS NULL) = (surplus_downlink IS NULL)", name="surplus"),
    CheckConstraint("state IN ('active', 'continued', 'duplicate', 'ignored')", name="state"),
    Index("streams_account", "account_uuid", "stored_node_id"),
    Index("streams_unresolved", "stored_node_id", postgresql_where=text("account_uuid IS NULL")),
    Index(
        "streams_present",
        "stored_node_id",
        postgresql_where=text("absent_since IS NULL OR before_uplink IS NOT NULL"),
    ),
    Index("streams_first_seen", "stored_node_id", "first_seen_at"),
    comment="One counter pair each: where its evidence stands, and whose it is.",
    postgresql_with=columns.CHANGED_EVERY_MINUTE,
)

usage_records = Table(
    "usage_records",
    metadata,
    columns.moment("bucket_start", "The UTC minute that the bytes count in."),
    Column("stream_id", BigInteger, nullable=False, comment="No foreign key: streams stay."),
    columns.moment("from_at"),
    columns.count("revision", "0 as collected; above 0 a correction."),
    Column("reset_epoch", Integer, nullable=False),
    columns.moment("to_at"),
    *columns.evidence(),
    columns.uuid("account_uuid"),
    Column("kind", Text, nullable=False, server_default=text("'delta'")),
    Column("run_id", UUID, comment="The run that stored it; null before revision 0003."),
    columns.count("step", SEAL_STEP_COMMENT),
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
    columns.stream(),
    columns.moment("from_at"),
    Column("reset_epoch", Integer, nullable=False),
    columns.moment("to_at"),
    *columns.evidence(),
    columns.maybe_moment("billed_at", "When it became usage records."),
    PrimaryKeyConstraint("stream_id", "from_at"),
    Index("pending_usage_waiting", "stream_id", postgresql_where=text("billed_at IS NULL")),
    comment="Usage of streams that have no account that can be charged, until it is.",
    postgresql_with={"fillfactor": 60},
)

held_deltas = Table(
    "held_deltas",
    metadata,
    columns.identity("held_id"),
    columns.stream(),
    columns.moment("bucket_start"),
    columns.moment("from_at"),
    Column("reset_epoch", Integer, nullable=False),
    columns.moment("to_at"),
    *columns.evidence(),
    columns.now("found_at"),
    Column("state", Text, nullable=False, server_default=text("'held'")),
    columns.maybe_moment("decided_at"),
    columns.reason("reason"),
    Column(
        "held_reason",
        Text,
        nullable=False,
        server_default=text("'account_rate'"),
        comment="Why it is not charged until an operator decides.",
    ),
    UniqueConstraint("stream_id", "from_at"),
    CheckConstraint(
        "held_reason IN ('account_rate', 'line_rate', 'duplicate', 'daily_charge')",
        name="held_reason",
    ),
    CheckConstraint("state IN ('held', 'released', 'rejected')", name="state"),
    Index("held_deltas_waiting", "stream_id", postgresql_where=text("state = 'held'")),
    comment="Deltas above what a line can carry, uncharged until an operator decides.",
)

charges = Table(
    "charges",
    metadata,
    # The columns of fixed width come first: between others they would take up to 7 bytes more.
    columns.moment("bucket_start"),
    columns.bytes_(
        "included_bytes", "Paid from the quota; negative where an adjustment gives back."
    ),
    columns.bytes_("rated_bytes", "Beyond the quota; negative where an adjustment gives back."),
    columns.bytes_("quota_before"),
    columns.now("created_at"),
    columns.uuid("account_uuid"),
    Column("ledger_id", UUID, nullable=False, comment="The id in public.billing_ledger."),
    columns.uuid("run_id"),
    Column("adjusts", UUID, comment="The charge that this row takes back or prices anew."),
    columns.text("entry_type"),
    columns.text("stored_node_id"),
    columns.text("region"),
    columns.text("line_code"),
    Column("price_per_byte", Numeric, nullable=False),
    Column("multiplier", Numeric, nullable=False),
    Column("amount_delta", Numeric(30, 9), nullable=False),
    Column("balance_before", Numeric(30, 9), nullable=False),
    columns.text("pricing_rule_version"),
    columns.reason("reason"),
    columns.count("step", SEAL_STEP_COMMENT),
    Column("ordinal", Integer, comment="Its place among the ledger entries of the step."),
    PrimaryKeyConstraint("bucket_start", "account_uuid", "ledger_id"),
    CheckConstraint("entry_type IN ('traffic_charge', 'traffic_adjustment')", name="entry_type"),
    comment="Append-only evidence of each ledger row: what was included, rated, at which price.",
    postgresql_partition_by="RANGE (bucket_start)",
)

daily_charges = Table(
    "daily_charges",
    metadata,
    Column("day", Date, nullable=False),
    columns.text("kind"),
    columns.text("name", "The account's uuid, or the stored node id."),
    Column("amount", Numeric(30, 9), nullable=False),
    PrimaryKeyConstraint("day", "kind", "name"),
    CheckConstraint("kind IN ('account', 'node')", name="kind"),
    comment="What collect charged by UTC day of the minutes, for those that have a daily maximum.",
    postgresql_with={"fillfactor": 50},
)

gaps = Table(
    "gaps",
    metadata,
    columns.identity("gap_id"),
    columns.text("source_id"),
    columns.text("kind"),
    columns.moment("from_at"),
    columns.maybe_moment("to_at", "Null while it lasts."),
    columns.count("streams", "How many streams it touches, where that is known."),
    columns.now("found_at"),
    columns.maybe_moment("resolved_at"),
    columns.reason("resolution"),
    Column(
        "uncertain_bytes",
        BigInteger,
        nullable=False,
        server_default=text("0"),
        comment="Not charged, because another reading charges less.",
    ),
    UniqueConstraint("source_id", "kind", "from_at"),
    CheckConstraint(
        "kind IN ('late', 'reset', 'history_lost', 'stalled', 'disorder', 'uncertain')",
        name="kind",
    ),
    comment="Stretches of a source's time that its history does not plainly cover.",
)

account_debts = Table(
    "account_debts",
    metadata,
    columns.text("stored_node_id"),
    columns.text("account_key"),
    columns.bytes_("debt_bytes"),
    columns.moment("as_of"),
    PrimaryKeyConstraint("stored_node_id", "account_key"),
    comment="What accounts used on a node beyond their plausibility credit.",
)

successions = Table(
    "successions",
    metadata,
    columns.identity("succession_id"),
    columns.text("source_id"),
    columns.text("stored_node_id"),
    columns.moment("at"),
    columns.text("kind"),
    Column("account_uuid", UUID),
    Column("uncertain_bytes", BigInteger, nullable=False, server_default=text("0")),
    columns.uuid("run_id"),
    columns.now("found_at"),
    CheckConstraint("kind IN ('renamed', 'restart_revoked')", name="kind"),
    Index("successions_node", "stored_node_id", "at"),
    comment="Counters that continue under other names, or after a restart that was none.",
)

succession_streams = Table(
    "succession_streams",
    metadata,
    Column(
        "succession_id",
        BigInteger,
        ForeignKey("billing.successions.succession_id"),
        nullable=False,
    ),
    columns.stream(),
    columns.text("side"),
    columns.bytes_("uplink_total"),
    columns.bytes_("downlink_total"),
    PrimaryKeyConstraint("succession_id", "stream_id", "side"),
    CheckConstraint("side IN ('ended', 'continued')", name="side"),
    Index("succession_streams_stream", "stream_id"),
    comment="The totals that each stream handed over or took over.",
)

source_totals = Table(
    "source_totals",
    metadata,
    Column("source_id", Text, primary_key=True),
    Column("charged_bytes", Numeric, nullable=False, server_default=text("0")),
    Column("charged_amount", Numeric(30, 9), nullable=False, server_default=text("0")),
    Column("new_streams", BigInteger, nullable=False, server_default=text("0")),
    Column("successions", BigInteger, nullable=False, server_default=text("0")),
    comment="What all runs did together with each source.",
    postgresql_with={"fillfactor": 50},
)

runs = Table(
    "runs",
    metadata,
    Column("run_id", UUID, primary_key=True),
    columns.text("job"),
    columns.text("status"),
    columns.moment("started_at"),
    columns.moment("finished_at"),
    columns.text("host"),
    columns.text("version"),
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
    columns.text("last_status"),
    columns.moment("last_started_at"),
    columns.moment("last_finished_at"),
    columns.maybe_moment("last_success_at", "The end of the last run that was ok or partial."),
    *(
        columns.bytes_(name)
        for name in (
            "runs",
            "failed_runs",
            "samples",
            "written_minutes",
            "replayed_minutes",
        )
    ),
    # One run of hostile exporters can sum up to more than a bigint holds.
    *(
        Column(name, Numeric, nullable=False)
        for name in (
            "included_bytes",
            "returned_included_bytes",
            "charged_bytes",
            "returned_charged_bytes",
        )
    ),
    Column("charged_amount", Numeric(30, 9), nullable=False),
    Column("returned_amount", Numeric(30, 9), nullable=False),
    *(
        columns.bytes_(name)
        for name in ("corrections", "resets", "gaps", "rejected_samples", "held_deltas")
    ),
    Column("violations", BigInteger, comment="What the last audit found; null for other jobs."),
    Column("notices", BigInteger, comment="What the last audit found; null for other jobs."),
    comment="One row a job: what all its runs did together, and how the last one ended.",
    postgresql_with={"fillfactor": 50},
)

pruned = Table(
    "pruned",
    metadata,
    columns.moment("month", "Its first instant, UTC."),
    columns.uuid("account_uuid"),
    columns.bytes_("records"),
    Column("recorded_bytes", Numeric, nullable=False),
    columns.bytes_("charges"),
    Column("included_bytes", Numeric, nullable=False),
    Column("rated_bytes", Numeric, nullable=False),
    Column("amount_delta", Numeric(30, 9), nullable=False),
    columns.bytes_("buckets"),
    Column(
        "bucket_bytes",
        Numeric,
        nullable=False,
        comment="In the shared buckets, whoever wrote them.",
    ),
    columns.bytes_("ledger_rows"),
    Column(
        "ledger_amount", Numeric, nullable=False, comment="In the shared ledger, whoever wrote it."
    ),
    columns.now("pruned_at"),
    PrimaryKeyConstraint("month", "account_uuid"),
    comment="What an account had in a month whose evidence was taken away: sums to audit by.",
)

pruned_streams = Table(
    "pruned_streams",
    metadata,
    Column("stream_id", BigInteger, primary_key=True, autoincrement=False),
    Column("reset_epoch", Integer, nullable=False),
    columns.moment("from_at"),
    columns.moment("to_at"),
    columns.bytes_("uplink_end"),
    columns.bytes_("downlink_end"),
    comment="Where a stream's pruned evidence ended, and what is left of it begins.",
)

quota_periods = Table(
    "quota_periods",
    metadata,
    columns.uuid("account_uuid"),
    columns.moment("period_start", "As the quota state had it when a run saw it first."),
    columns.now("seen_at"),
    columns.bytes_(
        "quota_bytes", "What minutes charged before had left of the renewed quota; may be below 0."
    ),
    columns.bytes_(
        "included_before", "Included bytes of minutes of the period that were charged before."
    ),
    columns.bytes_(
        "former_quota_bytes", "What is left of the former quota; late minutes of its period use it."
    ),
    columns.uuid("run_id"),
    PrimaryKeyConstraint("account_uuid", "period_start"),
    comment="Renewals of included quotas, as seen by the first run that charged the account then.",
)

pruned_charges = Table(
    "pruned_charges",
    metadata,
    Column("ledger_id", UUID, primary_key=True),
    columns.uuid("account_uuid"),
    columns.moment("created_at"),
    columns.bytes_("included_bytes"),
    Column("amount_delta", Numeric(30, 9), nullable=False),
    columns.bytes_("quota_before"),
    Column("balance_before", Numeric(30, 9), nullable=False),
    columns.maybe_moment("bucket_start", "Null where an earlier version pruned it."),
    Index("pruned_charges_account", "account_uuid"),
    comment="Pruned charges written after what is left began: steps of its balances.",
)

repairs = Table(
    "repairs",
    metadata,
    columns.uuid("account_uuid"),
    columns.uuid(
        "after_id", "The last entry of ours before the stale write: a charge, or a repair."
    ),
    columns.uuid("repair_id"),
    Column(
        "ledger_ids", ARRAY(UUID), nullable=False, comment="The charges that were lost, in order."
    ),
    Column("amount_delta", Numeric(30, 9), nullable=False, comment="What the balance changed by."),
    Column("balance_before", Numeric(30, 9), nullable=False),
    Column("balance_after", Numeric(30, 9), nullable=False),
    columns.bytes_("quota_before"),
    columns.bytes_("quota_after"),
    columns.text("reason"),
    columns.uuid("run_id"),
    columns.moment("at"),
    PrimaryKeyConstraint("account_uuid", "after_id"),
    UniqueConstraint("repair_id"),
    comment="Balances that were corrected after a stale write had undone charges: once for each.",
)

arrears = Table(
    "arrears",
    metadata,
    Column("account_uuid", UUID, primary_key=True),
    columns.moment("since", "When we first saw the balance below zero."),
    columns.maybe_moment("cleared_at", "When it was 0 or more again; null while it is below."),
    Column(
        "is_flag_ours",
        Boolean,
        nullable=False,
        server_default=text("true"),
        comment="Whether we set the account's flag: only such a flag is cleared by us.",
    ),
    comment="The accounts whose balance we saw below zero.",
)

suspensions = Table(
    "suspensions",
    metadata,
    columns.identity("suspension_id"),
    columns.uuid("account_uuid"),
    columns.moment("arrears_since"),
    columns.moment("suspended_at"),
    Column("balance", Numeric(30, 9), nullable=False, comment="At that time."),
    columns.uuid("run_id"),
    columns.maybe_moment("released_at"),
    Column("release_balance", Numeric(30, 9)),
    Column(
        "release_run_id", UUID, comment="Null where another service released the account before us."
    ),
    Index(
        "suspensions_open",
        "account_uuid",
        unique=True,
        postgresql_where=text("released_at IS NULL"),
    ),
    comment="The accounts that `billing suspend` suspended, and when they were released.",
)

seals = Table(
    "seals",
    metadata,
    columns.uuid("run_id"),
    Column(
        "step",
        Integer,
        nullable=False,
        comment="Counts the run's transactions that wrote facts, from 1; the month as YYYYMM for "
        "facts of earlier versions.",
    ),
    columns.text("job"),
    columns.now("created_at"),
    columns.moment("first_bucket"),
    columns.moment("last_bucket"),
    columns.bytes_("records"),
    columns.hash_("records_sha256", "Over the canonical lines in key order."),
    columns.bytes_("charges"),
    columns.hash_("charges_sha256", "Over the canonical lines in key order."),
    Column("record_checks", BYTEA, comment=CHECKS_COMMENT),
    Column("charge_checks", BYTEA, comment=CHECKS_COMMENT),
    Column("leaf_number", BigInteger, comment="Its leaf of the log; null until it is appended."),
    columns.maybe_moment("appended_at"),
    PrimaryKeyConstraint("run_id", "step"),
    UniqueConstraint("leaf_number"),
    CheckConstraint("records + charges > 0 OR job = 'prune'", name="facts"),
    CheckConstraint("(leaf_number IS NULL) = (appended_at IS NULL)", name="leaf"),
    Index(
        "seals_waiting",
        "created_at",
        "run_id",
        "step",
        postgresql_where=text("leaf_number IS NULL"),
    ),
    comment="What each transaction wrote: numbers and hashes of its facts.",
)

sealed_days = Table(
    "sealed_days",
    metadata,
    Column("day", Date, primary_key=True),
    columns.bytes_("accounts"),
    columns.hash_("salts_sha256", "Over the lines of the day's accounts and salts."),
    columns.hash_("root", "Of the tree of the day's account leaves."),
    columns.bytes_("leaf_number"),
    columns.moment("sealed_at"),
    UniqueConstraint("leaf_number"),
    comment="Days of booking whose root is a leaf of the log.",
)

day_leaves = Table(
    "day_leaves",
    metadata,
    Column("day", Date, nullable=False),
    columns.uuid("account_uuid"),
    columns.bytes_("position", "In the order of account_uuid."),
    columns.hash_("salt", "Hashed with the leaf; disclosed to its account only."),
    PrimaryKeyConstraint("day", "account_uuid"),
    comment="Which accounts had anything booked in a day.",
)

tree_nodes = Table(
    "tree_nodes",
    metadata,
    Column("tree", Integer, nullable=False, comment="0 is the log, else the day as YYYYMMDD."),
    Column("level", SmallInteger, nullable=False),
    columns.bytes_("position"),
    columns.hash_("hash"),
    PrimaryKeyConstraint("tree", "level", "position"),
    comment="Complete subtrees of the log and of each day's tree (RFC 6962).",
)

log_head = Table(
    "log_head",
    metadata,
    Column("is_only", Boolean, primary_key=True, server_default=text("true")),
    Column(
        "is_adopted",
        Boolean,
        nullable=False,
        server_default=text("false"),
        comment="Whether the facts of earlier versions are sealed.",
    ),
    Column("tree_size", BigInteger, nullable=False, server_default=text("0")),
    Column("note", Text),
    columns.maybe_moment("signed_at"),
    CheckConstraint("is_only", name="is_only"),
    comment="The newest signed checkpoint. Whoever appends locks its row.",
)

audits = Table(
    "audits",
    metadata,
    columns.identity("audit_id"),
    columns.uuid("run_id"),
    columns.moment("at"),
    Column("is_full", Boolean, nullable=False),
    columns.bytes_("violations"),
    columns.bytes_("notices"),
    columns.maybe_moment("since", "The first minute that was read; null where all were."),
    comment="The audits of all accounts, and what they found.",
)

archives = Table(
    "archives",
    metadata,
    columns.moment("month", "Its first instant, UTC."),
    columns.uuid("run_id"),
    columns.moment("archived_at"),
    columns.text("directory"),
    columns.bytes_("records"),
    columns.bytes_("charges"),
    columns.bytes_("seals"),
    Column(
        "facts_sha256",
        BYTEA,
        comment="Over run, step and line of the month's usage records, then of its charges.",
    ),
    PrimaryKeyConstraint("month"),
    comment="Months that were archived and verified: only these are pruned.",
)

audited_seals = Table(
    "audited_seals",
    metadata,
    columns.uuid("run_id"),
    Column("step", Integer, nullable=False),
    columns.moment("created_at"),
    PrimaryKeyConstraint("run_id", "step"),
    comment="Seals of the last days that a clean audit has proven.",
)

audited_streams = Table(
    "audited_streams",
    metadata,
    Column("stream_id", BigInteger, primary_key=True, autoincrement=False),
    Column("reset_epoch", Integer, nullable=False),
    columns.moment("seen_at"),
    columns.bytes_("uplink_total"),
    columns.bytes_("downlink_total"),
    columns.text("state"),
    comment="The checkpoints of streams at the last clean audit.",
)

audited_accounts = Table(
    "audited_accounts",
    metadata,
    Column("account_uuid", UUID, primary_key=True),
    Column("balance", Double),
    Column("quota", BigInteger),
    comment="The funds of accounts at the last clean audit.",
)

busy_sources = Table(
    "busy_sources",
    metadata,
    Column("source_id", Text, primary_key=True),
    columns.moment("since", "The first of the runs in a row that found it locked."),
    columns.moment("last_at", "The last one."),
    comment="Sources that runs found locked by another session; obsolete once a later run got "
    "through.",
)

stale_checkpoints = Table(
    "stale_checkpoints",
    metadata,
    columns.text("stored_node_id"),
    columns.uuid("account_uuid"),
    Column("is_stale", Boolean, nullable=False, comment="False once a later run has written it."),
    columns.moment("noted_at"),
    PrimaryKeyConstraint("stored_node_id", "account_uuid"),
    Index("stale_checkpoints_open", "stored_node_id", postgresql_where=text("is_stale")),
    comment="Shared checkpoints that a run left, because another session held the account.",
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
for _statement in SEAL_TRIGGERS:
    event.listen(metadata, "after_create", DDL(_statement))  # type: ignore[no-untyped-call]
event.listen(metadata, "after_create", DDL(MAKE_PARTITIONS_NOW))  # type: ignore[no-untyped-call]
