"""Checkpoints kept outside of the database, and what `audit` and `verify` say of a server."""

from __future__ import annotations

import uuid
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import psycopg

from billing_cli.core.notes import format_verifier_key
from billing_cli.database.connecting import Database
from billing_cli.database.seals import read_head
from billing_cli.errors import BillingError
from billing_cli.features.audit.job import audit
from billing_cli.features.seal.file import open_checkpoints
from billing_cli.features.seal.job import seal
from billing_cli.features.verify.job import verify
from billing_cli.signatures import generate_key

if TYPE_CHECKING:
    from pathlib import Path

    from billing_cli.jobs.context import JobContext
    from tests.torture.scenes import LimitedWorld

READ_FACTS = (
    "SELECT last_completed_until::text FROM public.billing_source_sync_state ORDER BY source_id",
    "SELECT id::text FROM public.billing_ledger ORDER BY id",
    "SELECT run_id::text FROM billing.runs ORDER BY run_id",
)
END_OF_SCENE_MINUTES = 13


class KeptLog:
    """The checkpoints of a log in a file, whichever server the log is on."""

    def __init__(self, directory: Path, world: LimitedWorld) -> None:
        self._world = world
        self._keys = generate_key("example.com/billing")
        self._file = directory / "checkpoints"
        self._key_file = directory / "key.pub"
        self._key_file.write_text(format_verifier_key(self._keys[1]) + "\n")
        self._facts: list[Any] = []

    def seal(self, database_url: str) -> None:
        """Seal what was committed, and keep the checkpoint."""
        with open_checkpoints(self._file) as file:
            file.append(seal(self._context(database_url), self._keys, kept=file.newest).checkpoint)

    def is_longer_than(self, database_url: str) -> bool:
        """Tell whether the newest checkpoint covers more than a server's log has."""
        with psycopg.connect(database_url) as connection, open_checkpoints(self._file) as file:
            return file.newest is not None and (
                file.newest.checkpoint.size > read_head(connection).tree_size
            )

    def audited(self, database_url: str) -> list[str]:
        """Return the violations that `audit` finds."""
        report = audit(self._context(database_url))
        return [f"audit: {finding}" for finding in report.findings if finding.is_violation]

    def verified(self, database_url: str, *, is_truncated: bool) -> list[str]:
        """Return where `verify` and `seal` don't say that the log lost its end, or that it did."""
        context = self._context(database_url)
        report = verify(context, checkpoint_files=[self._file], key_files=[self._key_file])
        kinds = {finding.kind for finding in report.findings}
        problems = []
        if kinds != ({"truncated"} if is_truncated else set()):
            problems.append(f"verify: {report.findings}")
        try:
            self.seal(database_url)
        except BillingError as error:
            if not is_truncated:
                problems.append(f"seal: {error}")
        else:
            if is_truncated:
                problems.append("seal signs a log that has lost its end")
        return problems

    def forbid_changes(self, database_url: str) -> None:
        """Remember the facts of a server, from which on they must not change."""
        self._facts = _facts(database_url)

    def changes(self, database_url: str) -> list[str]:
        """Return whether a server's facts have changed since then."""
        has_changed = _facts(database_url) != self._facts
        return ["an old primary was written to after its demotion"] if has_changed else []

    def _context(self, database_url: str) -> JobContext:
        now = self._world.at(END_OF_SCENE_MINUTES)
        return replace(
            self._world.context(now), run_id=str(uuid.uuid4()), database=Database(database_url)
        )


def _facts(database_url: str) -> list[Any]:
    with psycopg.connect(database_url) as connection:
        return [connection.execute(query).fetchall() for query in READ_FACTS]
