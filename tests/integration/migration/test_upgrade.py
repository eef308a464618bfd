"""A database with data of the first edition: migrated, it goes on where it stood."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
from alembic import command
from alembic.config import Config

from billing_cli.database.functions import ENABLE_ALWAYS
from billing_cli.database.schema import HEAD_REVISION
from billing_cli.errors import SchemaError
from billing_cli.features.audit.job import audit
from billing_cli.features.migrate.job import migrate
from billing_cli.features.verify.job import verify
from billing_cli.simulator.traffic import DEFAULT_START
from tests.integration.jobs.world import only_source, serving_world
from tests.support.catalog import schema_of
from tests.support.sealing import tamper

if TYPE_CHECKING:
    from tests.integration.jobs.world import World

ALEMBIC_INI = Path(__file__).parents[3] / "alembic.ini"

FIRST_EDITION = Path(__file__).with_name("first_edition.sql")


@pytest.fixture
def former_url(empty_database_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return a database at the first edition's last revision."""
    monkeypatch.setenv("DATABASE_URL", empty_database_url)
    command.upgrade(Config(ALEMBIC_INI), "0002")
    return empty_database_url


def test_the_schema_of_an_old_database_is_brought_to_head(
    former_url: str, database_url: str
) -> None:
    """It is then the same as that of a new one; without it, every command says what to do."""
    with pytest.raises(
        SchemaError, match=f"revision 0002, this version needs {HEAD_REVISION}; run"
    ):
        migrate(former_url, check=True)
    assert migrate(former_url).from_revision == "0002"
    assert schema_of(former_url, "billing") == schema_of(database_url, "billing")


def test_the_way_back_leads_to_the_former_schema(former_url: str) -> None:
    """And the way up is open again. Only the guards stay as strict as they were made."""
    with psycopg.connect(former_url) as connection:
        connection.execute(ENABLE_ALWAYS.encode())
    before = schema_of(former_url, "billing")
    migrate(former_url)
    command.downgrade(Config(ALEMBIC_INI), "0002")
    assert schema_of(former_url, "billing") == before
    assert migrate(former_url).from_revision == "0002"


def test_collecting_goes_on_after_the_migration(former_url: str) -> None:
    """Watermark, checkpoints and usage that waits are those of the first edition, to the byte."""
    with serving_world(former_url, former_url) as world:
        (user,) = world.add_users(1)
        node = world.add_node("jp-1", [user])
        node.poll_jitter_seconds = 0
        unknown = world.fleet.new_uuid()
        node.add_stream(unknown, node.streams[0].name.inbound_tag)
        for minute in range(4):
            for stream in node.streams:
                node.flow(stream, 100, 10)
            world.flow_until(minute + 1, rate=0)
        first_edition_collected(world, user.uuid, unknown)

        migrate(former_url)
        world.fleet.add_user(uuid=unknown)
        world.save_users()
        result = world.run_unchecked(world.at(6))

        assert (result.status, only_source(result).resets) == ("ok", 0)
        assert only_source(result).snapshots == 2
        billed = world.rows(
            "SELECT account_uuid::text, sum(total_bytes)::int FROM traffic_minute_buckets"
            " GROUP BY 1 ORDER BY 1"
        )
        # Three minutes follow the baseline; those that waited are settled in their last one.
        assert billed == sorted([(user.uuid, 330), (unknown, 330)])
        assert world.rows("SELECT count(*) FROM billing.pending_usage WHERE billed_at IS NULL") == [
            (0,)
        ]
        assert world.run_unchecked(world.at(6)).written_minutes == 0


def test_facts_of_the_first_edition_are_sealed_by_the_migration(former_url: str) -> None:
    """Once, by the month of their minutes; later ones have seals of their own, and all verify."""
    with serving_world(former_url, former_url) as world:
        (user,) = world.add_users(1)
        node = world.add_node("jp-1", [user])
        node.poll_jitter_seconds = 0
        for minute in range(4):
            node.flow(node.streams[0], 100, 10)
            world.flow_until(minute + 1, rate=0)
        first_edition_collected(world, user.uuid, world.fleet.new_uuid())
        migrate(former_url)
        migrate(former_url)
        assert world.rows("SELECT job, step, records, charges FROM billing.seals") == [
            ("adoption", DEFAULT_START.year * 100 + DEFAULT_START.month, 1, 0)
        ]
        world.run_unchecked(world.at(6))
        context = world.context(world.at(6))
        assert verify(context).findings == []
        assert not audit(context).counts.keys() & {"seal_missing", "seal_differs"}
        tamper(former_url, "UPDATE billing.usage_records SET reset_epoch = 7 WHERE step = 0")
        assert [(finding.kind, finding.table) for finding in verify(context).findings] == [
            ("changed", "billing.usage_records")
        ]


def first_edition_collected(world: World, account: str, unknown: str) -> None:
    """Leave what the first edition left after it had collected two minutes."""
    values = {
        "baseline": world.at(1),
        "watermark": world.at(2),
        "account": account,
        "unknown": unknown,
        "tag": next(iter(world.fleet.nodes.values())).streams[0].name.inbound_tag,
        "node": next(iter(world.fleet.nodes.values())).identity.stored,
        "node_id": next(iter(world.fleet.nodes.values())).identity.node_id,
        "env": next(iter(world.fleet.nodes.values())).identity.env,
    }
    with psycopg.connect(world.connection.info.dsn, autocommit=True) as connection:
        for statement in FIRST_EDITION.read_text(encoding="utf-8").split(";\n"):
            if statement.strip():
                connection.execute(statement.encode(), values)
    assert world.fleet.start == DEFAULT_START
