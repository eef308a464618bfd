"""What a shell completes: source ids of the configuration; accounts of the database.

Whoever presses the tab key gets an empty list, never an error or a long wait.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import click

    from billing_cli.config.settings import Settings


def complete_sources(context: click.Context, _parameter: click.Parameter, text: str) -> list[str]:
    """Return the configured source ids that begin with the text."""
    with suppress(Exception):
        ids = [source.source_id for source in _settings(context).sources]
        return [source_id for source_id in ids if source_id.startswith(text)]
    return []


def complete_accounts(context: click.Context, parameter: click.Parameter, text: str) -> list[str]:
    """Return account uuids, or else e-mail addresses, that begin with the text; the first ones."""
    with suppress(Exception):
        from billing_cli.cli.options import AccountType  # noqa: PLC0415
        from billing_cli.jobs.completion import account_names  # noqa: PLC0415
        from billing_cli.jobs.opening import database_of  # noqa: PLC0415

        database = database_of(_settings(context), "completion")
        return account_names(database, text, has_emails=isinstance(parameter.type, AccountType))
    return []


def _settings(context: click.Context) -> Settings:
    from billing_cli.config.settings import load_settings  # noqa: PLC0415

    path = context.find_root().params.get("config_path")
    return load_settings(path, os.environ, files_checked=False)
