"""Faults in the database: triggers that refuse what is written, for as often as they are told."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.integration.jobs.world import World

# A sequence goes on counting when a transaction is rolled back.
REFUSE_SOME_TIMES = """
CREATE SEQUENCE public.refusals;
CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
  IF nextval('public.refusals') {which} THEN
    RAISE EXCEPTION 'simulated' USING ERRCODE = '{sqlstate}';
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER refuse AFTER INSERT ON public.billing_ledger
  FOR EACH STATEMENT EXECUTE FUNCTION public.refuse()
"""

REFUSE_NODE = """
CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
  IF NEW.node_id = '{node}' THEN
    RAISE EXCEPTION 'simulated' USING ERRCODE = '{sqlstate}';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER refuse BEFORE {event} ON public.traffic_minute_buckets
  FOR EACH ROW EXECUTE FUNCTION public.refuse()
"""

ACCEPT_AGAIN = "DROP FUNCTION public.refuse() CASCADE"


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
    _refuse_node(world, source_id, sqlstate, "INSERT")


def refuse_changes_of_node(world: World, source_id: str, sqlstate: str) -> None:
    """Let every change of a node's buckets fail."""
    _refuse_node(world, source_id, sqlstate, "UPDATE")


def accept_again(world: World) -> None:
    """Take the refusal back."""
    world.connection.execute(ACCEPT_AGAIN)


def _refuse_node(world: World, source_id: str, sqlstate: str, event: str) -> None:
    node = world.fleet.nodes[source_id].identity.stored
    statement = REFUSE_NODE.format(node=node, sqlstate=sqlstate, event=event)
    world.connection.execute(statement.encode())
