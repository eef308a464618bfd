"""Shared tables as deployments have them: guards, checks and columns that are not ours to know."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

import psycopg
import pytest

from billing_cli.features.migrate.job import migrate
from billing_cli.features.rerate.job import Order, rerate
from billing_cli.simulator.accounts import save_users
from billing_cli.simulator.server import serve
from tests.integration.audit.full_story import FullStory
from tests.support.neighbour import add_row, add_to_balance

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.postgres import Databases

TABLES = (
    "users",
    "traffic_stat_checkpoints",
    "traffic_minute_buckets",
    "billing_ledger",
    "account_quota_states",
    "account_billing_profiles",
    "billing_source_sync_state",
)

VARIANT = """
UPDATE public.users SET proxy_uuid = uuid;
CREATE FUNCTION public.keep_users() RETURNS trigger LANGUAGE plpgsql AS
  $$ BEGIN RAISE EXCEPTION 'users are never deleted'; END $$;
CREATE TRIGGER keep_users BEFORE DELETE ON public.users
  FOR EACH ROW EXECUTE FUNCTION public.keep_users();
ALTER TABLE public.users
  ADD CONSTRAINT one_uuid CHECK (proxy_uuid = uuid),
  ADD proxy_access_state text NOT NULL DEFAULT 'allowed';
ALTER TABLE public.account_quota_states
  ADD arrears_since timestamptz, ADD period_start timestamptz, ADD period_end timestamptz;
"""

UNKNOWN_COLUMNS = """
ALTER TABLE public.{table}
  ADD added_later text, ADD added_with_default jsonb NOT NULL DEFAULT '{{}}'
"""


class VariantStory(FullStory):
    """The full story where an account's proxy uuid is its uuid."""

    def register_stranger(self) -> None:
        """Make the unknown uuid a user."""
        self.users.append(self.fleet.add_user(self.stranger, self.stranger))
        with psycopg.connect(self.database_url) as connection:
            save_users(connection, self.users)


@pytest.fixture
def story(database_url: str, job_url: str, databases: Databases) -> Iterator[VariantStory]:
    """Return the full story, still to be told, in a deployment with all the variants."""
    made = VariantStory(database_url, job_url)
    for user in made.users:
        user.proxy_uuid = user.uuid
    with psycopg.connect(database_url) as connection:
        connection.execute(VARIANT)
        for table in TABLES:
            connection.execute(UNKNOWN_COLUMNS.format(table=table).encode())
    migrate(database_url, grant_to=databases.job_role)
    with serve(made.fleet) as running:
        made.running = running
        yield made


def test_all_jobs_work_in_deployments_with_variants(story: VariantStory) -> None:
    """Collected, held, released, reconciled, re-rated and audited, with rows of others around."""
    migrate(story.database_url, check=True)
    charged = story.users[0].uuid
    story.play()
    with psycopg.connect(story.database_url) as connection:
        for kind, amount in (("topup", Decimal(25)), ("manual_adjustment", Decimal(-5))):
            add_row(connection, charged, amount, kind)
            add_to_balance(connection, charged, amount)
        connection.execute(
            "UPDATE public.account_quota_states"
            " SET remaining_included_quota = 1000, period_start = now()"
        )

    story.price *= 2
    order = Order(story.minutes(0), story.minutes(15), "v2", "the price list was not loaded")

    assert story.job(rerate, story.end, order=order).corrections > 0
    assert dict(story.audit().counts) == {}
    migrate(story.database_url, check=True)
