"""Replicas of an embedded server."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from billing_cli.simulator.postgres import EmbeddedPostgres, start_postgres, stop_postgres

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def server_directory() -> Iterator[Path]:
    """Name a directory for a server, and remove it with the server in it."""
    made = Path(tempfile.mkdtemp(prefix="billing-server-"))
    made.chmod(0o755)
    own = made / "server"
    try:
        yield own
    finally:
        stop_postgres(own)
        shutil.rmtree(made)


def can_copy(server: EmbeddedPostgres) -> bool:
    """Tell whether this PostgreSQL came with pg_basebackup."""
    return (server.programs / "pg_basebackup").exists()


@contextmanager
def standby_of(server: EmbeddedPostgres) -> Iterator[EmbeddedPostgres]:
    """Run a streaming replica of a server as long as the block lasts."""
    with server_directory() as made:
        made.mkdir()
        if os.geteuid() == 0:
            shutil.copystat(server.directory, made)
            os.chown(made, server.directory.stat().st_uid, server.directory.stat().st_gid)
        copy = EmbeddedPostgres(made, server.programs)
        copy.run("pg_basebackup", "--dbname", server.url(), "--write-recovery-conf", "--no-sync",
                 "--checkpoint=fast", "--wal-method=fetch")  # fmt: skip
        yield start_postgres(made, durable=False)
