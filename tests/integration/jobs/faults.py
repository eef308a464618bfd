"""Faults in the database: triggers that refuse what is written, for as often as they are told."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.integration.jobs.world import World
    from tests.support.story import Story

# A sequence goes on counting when a transaction is rolled back. The function is in our own schema,
# so that its errors count as the server's, not as those of another owner's trigger.
REFUSE_SOME_TIMES = """
CREATE SEQUENCE public.refusals;
CREATE FUNCTION billing.refuse() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
  IF nextval('public.refusals') {which} THEN
    RAISE EXCEPTION 'simulated' USING ERRCODE = '{sqlstate}';
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER refuse AFTER INSERT ON public.billing_ledger
  FOR EACH STATEMENT EXECUTE FUNCTION billing.refuse()
"""

REFUSE_NODE = """
CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
  IF NEW.node_id = '{node}' THEN
    RAISE EXCEPTION 'simulated' USING ERRCODE = '{sqlstate}';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER refuse BEFORE INSERT ON public.traffic_minute_buckets
  FOR EACH ROW EXECUTE FUNCTION public.refuse()
"""

REFUSE_ROWS = """
CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
  IF {when} THEN
    RAISE EXCEPTION 'simulated' USING ERRCODE = '{sqlstate}';
  END IF;
  RETURN NEW;
END $$;
CREATE {constraint} TRIGGER refuse AFTER INSERT OR UPDATE ON public.{table}
  {deferred} FOR EACH ROW EXECUTE FUNCTION public.refuse()
"""

ACCEPT_AGAIN = """
DROP FUNCTION IF EXISTS public.refuse() CASCADE;
DROP FUNCTION IF EXISTS billing.refuse() CASCADE
"""


def refuse_some_times(world: World, sqlstate: str, times: int) -> None:
    """Let so many writes of ledger entries fail."""
    statement = REFUSE_SOME_TIMES.format(sqlstate=sqlstate, which=f"<= {times}")
    world.connection.execute(statement.encode())


def refuse_later(world: World, sqlstate: str, accepted: int) -> None:
    """Let all writes of ledger entries fail that come after so many."""
    statement = REFUSE_SOME_TIMES.format(sqlstate=sqlstate, which=f"> {accepted}")
    world.connection.execute(statement.encode())


def refuse_node(world: World, source_id: str, sqlstate: str) -> None:
    """Let every new bucket of a node fail."""
    node = world.fleet.nodes[source_id].identity.stored
    statement = REFUSE_NODE.format(node=node, sqlstate=sqlstate)
    world.connection.execute(statement.encode())


def refuse(
    world: World | Story,
    table: str,
    when: str,
    *,
    is_deferred: bool = False,
    sqlstate: str = "P0001",
) -> None:
    """Let some new and changed rows of a shared table fail, at COMMIT where it is deferred."""
    statement = REFUSE_ROWS.format(
        table=table,
        when=when,
        sqlstate=sqlstate,
        constraint="CONSTRAINT" if is_deferred else "",
        deferred="DEFERRABLE INITIALLY DEFERRED" if is_deferred else "",
    )
    world.connection.execute(statement.encode())


def accept_again(world: World | Story) -> None:
    """Take the refusal back."""
    world.connection.execute(ACCEPT_AGAIN)
