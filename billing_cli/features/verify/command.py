"""`billing verify`."""

from __future__ import annotations

import json
import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from billing_cli.cli.options import MomentType, json_option
from billing_cli.cli.printing import print_report
from billing_cli.cli.running import open_context
from billing_cli.errors import EXIT_OK, EXIT_PARTIAL, UsageError

if TYPE_CHECKING:
    from datetime import datetime

    from billing_cli.cli.root import Options
    from billing_cli.features.verify.result import VerifyReport

# What can't be used is refused where it is read, with the exit code of a configuration.
FILE = click.Path(path_type=Path, readable=False)


@click.command("verify")
@click.option(
    "--since",
    type=MomentType(),
    metavar="TIME",
    help="Only the facts of minutes that runs since then wrote. The log is read as a whole.",
)
@click.option(
    "--checkpoint",
    "checkpoint_files",
    type=FILE,
    multiple=True,
    metavar="FILE",
    help="Checkpoints that were kept elsewhere; may be given several times.",
)
@click.option(
    "--public-key",
    "key_files",
    type=FILE,
    multiple=True,
    metavar="FILE",
    help="The public key of the log; several where it was changed.",
)
@click.option(
    "--statement",
    "statement_file",
    type=FILE,
    metavar="FILE",
    help="A statement, JSON or HTML. Needs neither configuration nor database.",
)
@click.option(
    "--archive",
    "archive_directory",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Archived months. Needs neither configuration nor database.",
)
@json_option
@click.pass_obj
def command(
    options: Options,
    since: datetime | None,
    checkpoint_files: tuple[Path, ...],
    key_files: tuple[Path, ...],
    statement_file: Path | None,
    archive_directory: Path | None,
    as_json: bool,
) -> None:
    """Prove that nothing was changed since a checkpoint that somebody kept.

    Recomputes the hashes of all usage records and charges, the log from its leaves, and compares
    with each kept checkpoint. Names run, table and account of what was changed, deleted or
    inserted, and whether the log lost its end. Exits with 3 where anything was found. Without a
    kept checkpoint it finds what does not fit together, but not a log that was rewritten as a
    whole. Writes nothing.

    \b
    Examples:
      billing verify --checkpoint /srv/witness/checkpoints --public-key seal.key.pub
      billing verify --since 2026-11-01T00:00:00Z --json
      billing verify --statement statement.html --public-key seal.key.pub
    """
    if statement_file is not None or archive_directory is not None:
        both = statement_file is not None and archive_directory is not None
        if both or checkpoint_files or since is not None:
            raise UsageError(
                "--statement and --archive prove a file by the checkpoint in it: each goes with "
                "--public-key and --json only"
            )
    if statement_file is not None:
        _verify_statement(statement_file, key_files, as_json)
    if archive_directory is not None:
        _verify_archive(archive_directory, key_files, as_json)
    from billing_cli.features.verify.job import verify  # noqa: PLC0415

    context = open_context(options, "verify", str(uuid.uuid4()), files_checked=False)
    is_shown = not as_json and sys.stderr.isatty()
    with click.progressbar(
        length=1, label="verifying", file=sys.stderr, hidden=not is_shown
    ) as progress:

        def on_facts(count: int, total: int) -> None:
            progress.length = max(total, 1)
            progress.update(count)

        report = verify(
            context,
            since=since,
            checkpoint_files=checkpoint_files,
            key_files=key_files,
            on_facts=on_facts,
        )
    show_report(report, as_json)


def _verify_statement(path: Path, key_files: tuple[Path, ...], as_json: bool) -> NoReturn:
    from billing_cli.features.verify import statement as offline  # noqa: PLC0415

    report = offline.verify_statement(path, key_files)
    shown = offline.statement_object(report)
    click.echo(json.dumps(shown) if as_json else offline.statement_report_text(report))
    sys.exit(EXIT_PARTIAL if report.findings else EXIT_OK)


def _verify_archive(directory: Path, key_files: tuple[Path, ...], as_json: bool) -> NoReturn:
    from billing_cli.features.verify import archive as offline  # noqa: PLC0415

    checks = offline.verify_archive(directory, key_files)
    shown = offline.archive_object(checks, len(key_files))
    click.echo(json.dumps(shown) if as_json else offline.archive_text(checks, len(key_files)))
    sys.exit(EXIT_PARTIAL if shown["findings"] else EXIT_OK)


def show_report(report: VerifyReport, as_json: bool) -> NoReturn:
    """Print what a verification found, and exit with 0, or 3 where that is anything."""
    from billing_cli.features.verify.result import verify_object, verify_parts  # noqa: PLC0415

    print_report("json" if as_json else "table", report, verify_object, verify_parts)
    sys.exit(EXIT_PARTIAL if report.findings else EXIT_OK)
