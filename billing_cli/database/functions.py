"""The functions and triggers of schema `billing`, as migrations lead to them.

No text here has a percent sign: it would need one escape where the driver reads it and another in
the script that `billing migrate --sql` prints.
"""

from __future__ import annotations

from billing_cli.database.schema import SCHEMA

REFUSE_CHANGE = """
CREATE FUNCTION billing.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION USING
    ERRCODE = 'restrict_violation',
    MESSAGE = TG_TABLE_SCHEMA || '.' || TG_TABLE_NAME || ' is append-only: '
              || TG_OP || ' is refused';
END
$$
"""

# A row can only be locked by who may update it. This lets the jobs' role lock accounts without
# that right: it runs as its owner, who migrated, and gives nothing away but which uuids exist.
LOCK_ACCOUNTS = """
CREATE FUNCTION billing.lock_accounts(uuid[]) RETURNS SETOF uuid
LANGUAGE sql VOLATILE STRICT SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  SELECT users.uuid FROM public.users WHERE users.uuid = ANY ($1) ORDER BY users.uuid FOR KEY SHARE
$$
"""

# The same for rows that no other session holds.
LOCK_AVAILABLE_ACCOUNTS = """
CREATE FUNCTION billing.lock_available_accounts(uuid[]) RETURNS SETOF uuid
LANGUAGE sql VOLATILE STRICT SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  SELECT users.uuid FROM public.users WHERE users.uuid = ANY ($1) ORDER BY users.uuid
     FOR KEY SHARE SKIP LOCKED
$$
"""

# The partitions of the evidence for the month of a moment; tells whether any had to be made. Each
# is made first and attached then, so that writers of other months wait for neither. It has the
# guard of its table, because a statement that names the partition fires no trigger of the parent.
MAKE_PARTITION = """
CREATE FUNCTION billing.make_partition(moment timestamptz) RETURNS boolean
LANGUAGE plpgsql VOLATILE STRICT SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' AS $$
DECLARE
  first timestamptz := date_trunc('month', moment);
  parent text;
  partition text;
  is_made boolean := false;
BEGIN
  FOREACH parent IN ARRAY ARRAY['usage_records', 'charges'] LOOP
    partition := 'billing.' || parent || '_' || to_char(first, 'YYYY_MM');
    CONTINUE WHEN to_regclass(partition) IS NOT NULL;
    EXECUTE 'CREATE TABLE ' || partition || ' (LIKE billing.' || parent
      || ' INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING COMMENTS)';
    EXECUTE 'CREATE TRIGGER ' || parent || '_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON '
      || partition || ' FOR EACH STATEMENT EXECUTE FUNCTION billing.refuse_change()';
    EXECUTE 'ALTER TABLE ' || partition || ' ENABLE ALWAYS TRIGGER ' || parent || '_append_only';
    EXECUTE 'ALTER TABLE billing.' || parent || ' ATTACH PARTITION ' || partition
      || ' FOR VALUES FROM (' || quote_literal(first)
      || ') TO (' || quote_literal(first + interval '1 month') || ')';
    is_made := true;
  END LOOP;
  RETURN is_made;
END
$$
"""

# For the jobs' role, which can create nothing itself: the month before this one, this one and two
# ahead, by the server's clock. It takes no arguments, waits for nobody longer than a moment, and
# never fails a run: a month that can't be made now, because somebody reads the rest or rows of it
# are there, is left to the next call, and its rows go to the rest.
MAKE_PARTITIONS = """
CREATE FUNCTION billing.make_partitions() RETURNS integer
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' SET lock_timeout = '500ms' AS $$
DECLARE
  this_month timestamptz := date_trunc('month', now());
  ahead integer;
  made integer := 0;
BEGIN
  IF NOT pg_try_advisory_xact_lock(27700462113877608) THEN
    RETURN 0;
  END IF;
  FOR ahead IN -1 .. 2 LOOP
    BEGIN
      IF billing.make_partition(this_month + ahead * interval '1 month') THEN
        made := made + 1;
      END IF;
    EXCEPTION WHEN lock_not_available OR check_violation THEN
      NULL;
    END;
  END LOOP;
  RETURN made;
END
$$
"""

# For databases of earlier versions: their triggers did not fire for a session that says it is a
# replica. Does nothing where the tables are not there, as after a downgrade.
ENABLE_ALWAYS = f"""
DO $enable$
DECLARE
  trigger record;
BEGIN
  IF to_regclass('billing.charges') IS NULL THEN
    RETURN;
  END IF;
  FOR trigger IN
    SELECT tgrelid::regclass::text AS relation, tgname
      FROM pg_trigger
     WHERE tgfoid = to_regprocedure('billing.refuse_change()') AND tgenabled <> 'A'
  LOOP
    EXECUTE 'ALTER TABLE ' || trigger.relation || ' ENABLE ALWAYS TRIGGER '
      || quote_ident(trigger.tgname);
  END LOOP;
  EXECUTE $make${MAKE_PARTITION.replace("CREATE", "CREATE OR REPLACE", 1)}$make$;
END
$enable$
"""

FUNCTIONS = (
    REFUSE_CHANGE,
    LOCK_ACCOUNTS,
    "REVOKE ALL ON FUNCTION billing.lock_accounts(uuid[]) FROM PUBLIC",
    LOCK_AVAILABLE_ACCOUNTS,
    "REVOKE ALL ON FUNCTION billing.lock_available_accounts(uuid[]) FROM PUBLIC",
    MAKE_PARTITION,
    "REVOKE ALL ON FUNCTION billing.make_partition(timestamptz) FROM PUBLIC",
    MAKE_PARTITIONS,
    "REVOKE ALL ON FUNCTION billing.make_partitions() FROM PUBLIC",
)
"""In the order in which they are created. Those that run as their owner are not for everyone."""


def append_only_trigger(table_name: str, parent: str | None = None) -> str:
    """Return the statement that has the database refuse changes to a table's rows.

    It fires for each statement, not for each row: TRUNCATE has no rows, and a change that meets
    none is refused as well. `parent` is the table that this one is a partition of.
    """
    return (
        f"CREATE TRIGGER {parent or table_name}_append_only "
        f"BEFORE UPDATE OR DELETE OR TRUNCATE ON {SCHEMA}.{table_name} "
        f"FOR EACH STATEMENT EXECUTE FUNCTION {SCHEMA}.refuse_change()"
    )


def always(table_name: str, parent: str | None = None) -> str:
    """Return the statement that has the trigger fire in every session.

    Otherwise whoever may set `session_replication_role` could change rows past it.
    """
    return (
        f"ALTER TABLE {SCHEMA}.{table_name} "
        f"ENABLE ALWAYS TRIGGER {parent or table_name}_append_only"
    )


def partitions_of(table_name: str) -> tuple[str, ...]:
    """Return the statements that make a partitioned table ready for rows of whatever month."""
    return append_only_trigger(table_name), always(table_name), *rest_of(table_name)


def rest_of(table_name: str) -> tuple[str, ...]:
    """Return the statements that make the partition for rows that no month's partition takes."""
    rest = f"{table_name}_default"
    return (
        f"CREATE TABLE {SCHEMA}.{rest} PARTITION OF {SCHEMA}.{table_name} DEFAULT",
        append_only_trigger(rest, table_name),
        always(rest, table_name),
    )


def _seal_triggers() -> tuple[str, ...]:
    execute = "EXECUTE FUNCTION billing.refuse_change()"
    fixed = (
        "run_id, step, job, created_at, first_bucket, last_bucket, records, records_sha256,"
        " charges, charges_sha256, record_checks, charge_checks"
    )
    # Appending a seal to the log sets its leaf number, once.
    guards = {
        "seals_append_only": "DELETE OR TRUNCATE ON billing.seals FOR EACH STATEMENT",
        "seals_fixed": f"UPDATE OF {fixed} ON billing.seals FOR EACH STATEMENT",
        "seals_appended_once": "UPDATE ON billing.seals FOR EACH ROW"
        " WHEN (OLD.leaf_number IS NOT NULL)",
    }
    tables = ("sealed_days", "day_leaves", "tree_nodes")
    return (
        *(f"CREATE TRIGGER {name} BEFORE {on} {execute}" for name, on in guards.items()),
        *(f"ALTER TABLE billing.seals ENABLE ALWAYS TRIGGER {name}" for name in guards),
        *map(append_only_trigger, tables),
        *map(always, tables),
    )


SEAL_TRIGGERS = _seal_triggers()
"""What keeps seals and the log as they were written."""
