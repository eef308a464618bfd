"""Runs the migrations by Alembic, in a transaction of ours.

SQLAlchemy and Alembic are loaded inside the functions: whoever imports all jobs must not pay for
them.
"""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import billing_cli

if TYPE_CHECKING:
    import io
    from collections.abc import Iterator

    import psycopg
    from alembic.config import Config
    from sqlalchemy import Connection


def run_migrations(connection: psycopg.Connection) -> None:
    """Migrate to the newest revision, in the transaction of the connection."""
    from alembic import command  # noqa: PLC0415 - loaded only to migrate

    config = alembic_config()
    with sqlalchemy_connection(connection) as lent:
        config.attributes["connection"] = lent
        command.upgrade(config, "head")


def write_migrations(output: io.StringIO) -> None:
    """Write the SQL of all migrations of an empty database."""
    from alembic import command  # noqa: PLC0415 - loaded only to migrate

    command.upgrade(alembic_config(output), "head", sql=True)


@contextmanager
def sqlalchemy_connection(connection: psycopg.Connection) -> Iterator[Connection]:
    """Lend a connection to SQLAlchemy; its transaction stays the session's to end.

    Database errors leave the block as the driver's own.
    """
    from sqlalchemy import create_engine  # noqa: PLC0415 - loaded only to migrate
    from sqlalchemy.exc import DBAPIError  # noqa: PLC0415
    from sqlalchemy.pool import StaticPool  # noqa: PLC0415

    engine = create_engine(
        "postgresql+psycopg://",
        creator=lambda: connection,
        poolclass=StaticPool,
        use_native_hstore=False,
    )
    engine.dialect.do_commit = _leave_open  # type: ignore[method-assign, assignment]
    engine.dialect.do_rollback = _leave_open  # type: ignore[method-assign, assignment]
    try:
        with engine.connect() as lent:
            yield lent
    except DBAPIError as error:
        raise error.orig or error from None


def alembic_config(output: io.StringIO | None = None) -> Config:
    """Return Alembic's configuration, with the migrations that this installation came with."""
    from alembic.config import Config  # noqa: PLC0415 - loaded only to migrate

    config = Config(output_buffer=output)
    config.set_main_option("script_location", str(_migrations()).replace("%", "%%"))
    return config


def _leave_open(_connection: object) -> None:
    """Stand in for SQLAlchemy's COMMIT and ROLLBACK."""


def _migrations() -> Path:
    """Return the migrations' directory: inside an installed wheel, or at the top of a checkout."""
    package = Path(billing_cli.__file__).parent
    installed = package / "_alembic"
    return installed if installed.is_dir() else package.parent / "alembic"
