"""What the role that runs the jobs may do: exactly what the statements of this room need.

No DELETE anywhere, no UPDATE of a ledger entry or of evidence, two columns of `public.users`, no
DDL. A test runs each statement with each of these privileges taken away, so the list can neither
fall behind nor hold more than is needed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from billing_cli.database.schema import SCHEMA

if TYPE_CHECKING:
    from collections.abc import Sequence


def grant_script(role: str) -> str:
    """Return the SQL that lets a role run the jobs. It may be run again, after each migration.

    What the role was given in our own schema by an earlier version is taken away first. In
    `public` nothing is taken away: that is its owner's to do.
    """
    name = '"' + role.replace('"', '""') + '"'
    functions = [f"GRANT EXECUTE ON FUNCTION {function} TO {name};" for function in FUNCTIONS]
    return _script(name, [*functions, _temporary_tables(role)], GRANTS, OPTIONAL_GRANTS)


def _temporary_tables(role: str) -> str:
    """Let the role make the staging tables, as everybody may by default."""
    quoted = role.replace("'", "''")
    return (
        "DO $grant$ BEGIN IF NOT has_database_privilege("
        f"'{quoted}', current_database(), 'TEMPORARY')\n"
        "THEN EXECUTE 'GRANT TEMPORARY ON DATABASE ' || quote_ident(current_database())"
        f" || ' TO ' || quote_ident('{quoted}'); END IF; END $grant$;"
    )


def suspend_grant_script(role: str) -> str:
    """Return the SQL that lets a role run `billing suspend`, as `grant_script` does for jobs.

    It is for a role of its own: whatever else the role was given in our schema is taken away.
    """
    name = '"' + role.replace('"', '""') + '"'
    return _script(name, [], SUSPEND_GRANTS, SUSPEND_OPTIONAL_GRANTS)


def seal_grant_script(role: str) -> str:
    """Return the SQL that lets a role run `billing seal`, as `suspend_grant_script` does."""
    name = '"' + role.replace('"', '""') + '"'
    return _script(name, [], SEAL_GRANTS, ())


def _script(
    name: str, functions: Sequence[str], grants: Sequence[Grant], optional: Sequence[Grant]
) -> str:
    lines = [
        f"REVOKE ALL ON ALL TABLES IN SCHEMA {SCHEMA} FROM {name};",
        f"GRANT USAGE ON SCHEMA {SCHEMA}, public TO {name};",
        *functions,
        *(f"{_statement(grant)} TO {name};" for grant in grants),
    ]
    lines += [
        f"DO $grant$ BEGIN IF EXISTS (SELECT FROM pg_attribute WHERE attrelid = '{grant.table}'"
        f"::regclass AND attname = '{grant.columns[0]}' AND NOT attisdropped)\n"
        f"THEN {_statement(grant)} TO {name}; END IF; END $grant$;"
        for grant in optional
    ]
    return "\n".join(lines) + "\n"


class Grant(NamedTuple):
    """A privilege on columns of a table, or on the whole of it where none are named."""

    privilege: str
    table: str
    columns: tuple[str, ...] = ()


def _statement(grant: Grant) -> str:
    columns = f" ({', '.join(grant.columns)})" if grant.columns else ""
    return f"GRANT {grant.privilege}{columns} ON {grant.table}"


def _grants(table: str, **columns: str) -> tuple[Grant, ...]:
    return tuple(
        Grant(privilege.upper(), table, tuple(names.split()))
        for privilege, names in columns.items()
    )


GRANTS = (
    *_grants("public.users", select="uuid proxy_uuid"),
    *_grants(
        "public.account_billing_profiles",
        select="account_uuid package_name included_quota_bytes base_price_per_byte"
        " region_multiplier line_multiplier peak_multiplier offpeak_multiplier",
    ),
    *_grants(
        "public.traffic_stat_checkpoints",
        select="node_id account_uuid last_uplink_total last_downlink_total last_seen_at"
        " reset_epoch",
        insert="node_id account_uuid last_uplink_total last_downlink_total last_seen_at"
        " reset_epoch",
        update="last_uplink_total last_downlink_total last_seen_at reset_epoch updated_at",
    ),
    *_grants(
        "public.traffic_minute_buckets",
        select="bucket_start node_id account_uuid region line_code uplink_bytes downlink_bytes"
        " total_bytes created_at",
        insert="bucket_start node_id account_uuid region line_code uplink_bytes downlink_bytes"
        " total_bytes multiplier rating_status source_revision created_at",
        update="uplink_bytes downlink_bytes total_bytes multiplier source_revision updated_at",
    ),
    *_grants(
        "public.billing_ledger",
        select="id account_uuid bucket_start bucket_end entry_type rated_bytes amount_delta"
        " balance_after pricing_rule_version created_at",
        insert="id account_uuid bucket_start bucket_end entry_type rated_bytes amount_delta"
        " balance_after pricing_rule_version created_at",
    ),
    *_grants(
        "public.account_quota_states",
        select="",
        insert="account_uuid remaining_included_quota current_balance arrears throttle_state"
        " suspend_state effective_at updated_at",
        update="remaining_included_quota current_balance arrears throttle_state"
        " last_rated_bucket_at effective_at updated_at",
    ),
    *_grants(
        "public.billing_source_sync_state",
        select="source_id last_completed_until last_attempted_at last_succeeded_at last_error",
        insert="source_id last_completed_until last_attempted_at last_succeeded_at last_error"
        " updated_at",
        update="last_completed_until last_attempted_at last_succeeded_at last_error updated_at",
    ),
    *_grants("billing.alembic_version", select=""),
    *_grants(
        "billing.sources",
        select="",
        insert="",
        update="env node_id stored_node_id contract first_snapshot_at watermark samples_at"
        " restarted_at debt_bytes debt_at credit_since former_nodes moved_to updated_at"
        " accepted_at accepted_reason accepted_until",
    ),
    *_grants(
        "billing.streams",
        select="",
        insert="",
        update="account_uuid seen_at uplink_total downlink_total reset_epoch absent_since"
        " before_uplink before_downlink state surplus_uplink surplus_downlink",
    ),
    *_grants("billing.usage_records", select="", insert=""),
    *_grants(
        "billing.pending_usage",
        select="",
        insert="",
        update="to_at uplink_end downlink_end billed_at",
    ),
    *_grants(
        "billing.held_deltas",
        select="",
        insert="",
        update="to_at uplink_end downlink_end state decided_at reason",
    ),
    *_grants("billing.busy_sources", select="", insert="", update="since last_at"),
    *_grants("billing.account_debts", select="", insert="", update="debt_bytes as_of"),
    *_grants("billing.stale_checkpoints", select="", insert="", update="is_stale noted_at"),
    *_grants("billing.successions", select="", insert=""),
    *_grants("billing.succession_streams", select="", insert=""),
    *_grants("billing.charges", select="", insert=""),
    *_grants(
        "billing.seals",
        select="",
        insert="run_id step job created_at first_bucket last_bucket records records_sha256 charges"
        " charges_sha256 record_checks charge_checks",
    ),
    *_grants("billing.sealed_days", select=""),
    *_grants("billing.day_leaves", select=""),
    *_grants("billing.tree_nodes", select=""),
    *_grants("billing.log_head", select=""),
    *_grants("billing.quota_periods", select="", insert="", update="former_quota_bytes"),
    *_grants("billing.gaps", select="", insert="", update="source_id to_at resolved_at resolution"),
    *_grants("billing.runs", select="", insert="", update="status finished_at error result"),
    *_grants("billing.daily_charges", select="", insert="", update="amount"),
    *_grants("billing.repairs", select="", insert=""),
    *_grants("billing.arrears", select="", insert="", update="since cleared_at is_flag_ours"),
    *_grants("billing.audits", select="", insert=""),
    *_grants(
        "billing.archives",
        select="",
        insert="",
        update="run_id archived_at directory records charges seals facts_sha256",
    ),
    *_grants("billing.audited_seals", select="", insert=""),
    *_grants(
        "billing.audited_streams",
        select="",
        insert="",
        update="reset_epoch seen_at uplink_total downlink_total state",
    ),
    *_grants("billing.audited_accounts", select="", insert="", update="balance quota"),
    *_grants("billing.pruned", select=""),
    *_grants("billing.pruned_streams", select=""),
    *_grants("billing.pruned_charges", select=""),
    *_grants(
        "billing.source_totals",
        select="",
        insert="",
        update="charged_bytes charged_amount new_streams successions",
    ),
    *_grants(
        "billing.totals",
        select="",
        insert="",
        update="last_status last_started_at last_finished_at last_success_at runs failed_runs"
        " samples written_minutes replayed_minutes included_bytes returned_included_bytes"
        " charged_bytes returned_charged_bytes charged_amount returned_amount corrections"
        " resets gaps rejected_samples held_deltas violations notices",
    ),
)

# Columns that only newer deployments of the accounts service have, one in each grant.
OPTIONAL_GRANTS = (
    *_grants("public.account_quota_states", update="arrears_since"),
    *_grants("public.users", select="email"),
)

# What the role that runs `billing suspend` may do: the only one that changes `suspend_state`.
SUSPEND_GRANTS = (
    *_grants(
        "public.account_quota_states",
        select="account_uuid current_balance arrears throttle_state suspend_state",
        update="arrears throttle_state suspend_state updated_at",
    ),
    *_grants("billing.alembic_version", select=""),
    *_grants("billing.arrears", select="", insert="", update="since cleared_at is_flag_ours"),
    *_grants(
        "billing.suspensions",
        select="",
        insert="",
        update="released_at release_balance release_run_id",
    ),
    *_grants("billing.runs", select="", insert="", update="status finished_at error result"),
    *(grant for grant in GRANTS if grant.table in {"billing.totals", "billing.source_totals"}),
)

# What the role that runs `billing seal` may do: the only one that appends to the log.
SEAL_GRANTS = (
    *_grants("billing.alembic_version", select=""),
    *_grants("billing.charges", select=""),
    *_grants("billing.seals", select="", update="leaf_number appended_at"),
    *_grants("billing.sealed_days", select="", insert=""),
    *_grants("billing.day_leaves", insert=""),
    *_grants("billing.tree_nodes", select="", insert=""),
    *_grants("billing.log_head", select="", update="tree_size note signed_at"),
    *_grants("billing.runs", select="", insert="", update="status finished_at error result"),
    *(grant for grant in GRANTS if grant.table in {"billing.totals", "billing.source_totals"}),
)

SUSPEND_OPTIONAL_GRANTS = _grants(
    "public.account_quota_states", select="arrears_since", update="arrears_since"
)

LOCK_FUNCTIONS = (f"{SCHEMA}.lock_accounts(uuid[])", f"{SCHEMA}.lock_available_accounts(uuid[])")
PARTITION_FUNCTION = f"{SCHEMA}.make_partitions()"
FUNCTIONS = (*LOCK_FUNCTIONS, PARTITION_FUNCTION)
"""What the role may call that runs as its owner."""
