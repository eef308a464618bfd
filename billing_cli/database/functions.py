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
# that right: it runs as its owner, the role below, and gives nothing away but which uuids exist.
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

LOCK_ROLE = "billing_lock_accounts"
"""Owns the functions that lock accounts. It can't log in, and has nothing but two privileges.

So a view, a rule or a trigger that someone puts in the place of `public.users` runs as a role that
may do nothing, not as whoever migrated. Roles belong to the server: all its databases share it.
"""

# Makes the role where it is missing and hands the functions over; does nothing where that is done.
# Who may not do a part of it gets to know which statements to have run, and by whom.
ASSIGN_LOCK_ROLE = f"""
DO $assign$
DECLARE
  me text := quote_ident(current_user);
  membership text := CASE WHEN current_setting('server_version_num')::integer >= 160000
                          THEN 'SET' ELSE 'MEMBER' END;
  make text := 'CREATE ROLE {LOCK_ROLE} NOLOGIN';
  join_role text := 'GRANT {LOCK_ROLE} TO ' || me;
  privileges text := 'GRANT SELECT (uuid), UPDATE (uuid) ON public.users TO {LOCK_ROLE}';
  enter text := 'GRANT USAGE ON SCHEMA public TO {LOCK_ROLE}';
  owned integer;
BEGIN
  SELECT count(*) INTO owned FROM pg_proc
   WHERE oid IN (to_regprocedure('billing.lock_accounts(uuid[])'),
                 to_regprocedure('billing.lock_available_accounts(uuid[])'))
     AND proowner = to_regrole('{LOCK_ROLE}');
  IF owned = 2 AND has_column_privilege('{LOCK_ROLE}', 'public.users', 'uuid', 'SELECT')
     AND has_column_privilege('{LOCK_ROLE}', 'public.users', 'uuid', 'UPDATE')
     AND has_schema_privilege('{LOCK_ROLE}', 'public', 'USAGE') THEN
    RETURN;
  END IF;
  IF to_regrole('{LOCK_ROLE}') IS NULL THEN
    BEGIN
      EXECUTE make;
    EXCEPTION
      WHEN duplicate_object OR unique_violation THEN NULL;
      WHEN insufficient_privilege THEN
        RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege', MESSAGE =
          'role {LOCK_ROLE} is missing, and ' || me || ' can''t create it; '
          || 'have a superuser run: ' || make || '; ' || join_role || ';';
    END;
  END IF;
  IF NOT pg_has_role(current_user, '{LOCK_ROLE}', membership) THEN
    BEGIN
      EXECUTE join_role;
    EXCEPTION WHEN insufficient_privilege THEN
      RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege', MESSAGE =
        me || ' can''t give functions to role {LOCK_ROLE}; have a superuser run: '
        || join_role || ';';
    END;
  END IF;
  BEGIN
    IF NOT has_schema_privilege('{LOCK_ROLE}', 'public', 'USAGE') THEN
      EXECUTE enter;
    END IF;
    EXECUTE privileges;
  EXCEPTION WHEN insufficient_privilege THEN NULL;
  END;
  IF NOT (has_schema_privilege('{LOCK_ROLE}', 'public', 'USAGE')
          AND has_column_privilege('{LOCK_ROLE}', 'public.users', 'uuid', 'SELECT')
          AND has_column_privilege('{LOCK_ROLE}', 'public.users', 'uuid', 'UPDATE')) THEN
    RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege', MESSAGE =
      me || ' can''t grant on public.users; have its owner run: ' || enter || '; '
      || privileges || ';';
  END IF;
  -- Whoever takes a function over has to be able to create one there, for that moment.
  GRANT CREATE ON SCHEMA billing TO {LOCK_ROLE};
  ALTER FUNCTION billing.lock_accounts(uuid[]) OWNER TO {LOCK_ROLE};
  ALTER FUNCTION billing.lock_available_accounts(uuid[]) OWNER TO {LOCK_ROLE};
  REVOKE CREATE ON SCHEMA billing FROM {LOCK_ROLE};
END
$assign$
"""

# The partitions of the evidence for the month of a moment; returns whether any had to be made. Each
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
# ahead, by the server's clock. It takes no arguments, waits half a second at most for a lock,
# and never fails a run: a month that can't be made now, because another session reads the rest or
# rows of it are there, is left to the next call, and its rows go to the rest.
MAKE_PARTITIONS = """
CREATE FUNCTION billing.make_partitions() RETURNS integer
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' SET lock_timeout = '500ms' AS $$
DECLARE
  this_month timestamptz := date_trunc('month', now());
  ahead integer;
  made integer := 0;
BEGIN
  BEGIN
    -- As attaching does. Unlike an advisory lock, no role without privileges here can take it.
    LOCK TABLE billing.charges IN SHARE UPDATE EXCLUSIVE MODE NOWAIT;
  EXCEPTION WHEN lock_not_available THEN
    RETURN 0;
  END;
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
