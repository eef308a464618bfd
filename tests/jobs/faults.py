"""Faults in the database: triggers that refuse what is written, for as often as they are told."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.jobs.world import World

# A sequence goes on counting when a transaction is rolled back.
REFUSE_SOME_TIMES = """
CREATE SEQUENCE public.refusals;
CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
  IF nextval('public.refusals') <= {times} THEN
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
CREATE TRIGGER refuse BEFORE INSERT ON public.traffic_minute_buckets
  FOR EACH ROW EXECUTE FUNCTION public.refuse()
"""

ACCEPT_AGAIN = "DROP FUNCTION public.refuse() CASCADE"


def refuse_some_times(world: World, sqlstate: str, times: int) -> None:
    """Let so many writes of ledger entries fail."""
    world.connection.execute(REFUSE_SOME_TIMES.format(sqlstate=sqlstate, times=times).encode())


def refuse_node(world: World, source_id: str, sqlstate: str) -> None:
    """Let every write of a node's buckets fail."""
    node = world.fleet.nodes[source_id].identity.stored
    world.connection.execute(REFUSE_NODE.format(node=node, sqlstate=sqlstate).encode())


def accept_again(world: World) -> None:
    """Take the refusal back."""
    world.connection.execute(ACCEPT_AGAIN)
