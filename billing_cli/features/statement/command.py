"""`billing statement`."""

from __future__ import annotations

import json
import os
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from billing_cli.cli.completion import complete_accounts
from billing_cli.cli.options import AccountType, MonthType
from billing_cli.cli.printing import terminal
from billing_cli.cli.running import open_context
from billing_cli.errors import BillingError, UsageError

if TYPE_CHECKING:
    from datetime import date

    from billing_cli.cli.root import Options


@click.command("statement")
@click.argument("account", type=AccountType(), shell_complete=complete_accounts, metavar="ACCOUNT")
@click.option("--month", type=MonthType(), required=True, metavar="MONTH", help="Such as 2026-11.")
@click.option(
    "--format",
    "style",
    type=click.Choice(["text", "json", "csv", "html"]),
    help="JSON and HTML carry what proves them. [default: text]",
)
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="The same as --format json; with --out, also print one JSON object to stdout.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write to this file. [default: standard output]",
)
@click.option(
    "--by-email", "is_by_email", is_flag=True, help="Insist that ACCOUNT is an e-mail address."
)
@click.pass_obj
def command(
    options: Options,
    account: str,
    month: date,
    style: str | None,
    as_json: bool,
    out: Path | None,
    is_by_email: bool,
) -> None:
    """Show what an account was charged in a month, so that its customer can verify it.

    ACCOUNT is the account's uuid, a proxy uuid of it, or its e-mail address. Charges are
    of the UTC day on which they were booked; usage_day tells when the bytes flowed. Opening
    balance, charges and all other entries add up to the closing balance. Whoever has the public
    key of the log verifies the file with `billing verify --statement FILE --public-key FILE`,
    without access to anything else. Days that are not sealed yet are marked. Writes nothing to the
    database.

    \b
    Examples:
      billing statement 11111111-1111-1111-1111-111111111111 --month 2026-11
      billing statement user@example.com --month 2026-11 --format csv
    """
    from billing_cli.features.statement.job import statement  # noqa: PLC0415

    if is_by_email and "@" not in account:
        raise UsageError(f"{account!r} is no e-mail address")
    if as_json and style not in {None, "json"}:
        raise UsageError(f"--json and --format {style} exclude each other")
    style = "json" if as_json else style or "text"
    context = open_context(options, "statement", str(uuid.uuid4()), files_checked=False)
    text = _in_style(statement(context, account, month), style, is_for_file=out is not None)
    if out is None:
        click.echo(text, nl=False)
        return
    _write(out, text)
    if as_json:
        done = {"job": "statement", "status": "ok", "error": None, "file": str(out)}
        click.echo(json.dumps(done))


def _in_style(made: dict[str, Any], style: str, *, is_for_file: bool) -> str:
    from billing_cli.cli.statement_html import statement_html  # noqa: PLC0415
    from billing_cli.features.statement.text import (  # noqa: PLC0415
        statement_csv,
        statement_text,
    )

    if style == "json":
        # Standard output may have an encoding that is not UTF-8.
        return json.dumps(made, ensure_ascii=not is_for_file, indent=1) + "\n"
    text = {
        "text": lambda: statement_text(made, None if is_for_file else terminal()),
        "csv": lambda: statement_csv(made),
        "html": lambda: statement_html(made),
    }[style]()
    return text.rstrip("\n") + "\n"


def _write(path: Path, text: str) -> None:
    """Write the file whole or not at all, for its owner alone. Raises BillingError."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(partial, "w", encoding="utf-8", newline="\n", opener=_open_for_owner) as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise BillingError(f"--out {path}: {error.strerror}") from None


def _open_for_owner(path: str, flags: int) -> int:
    """Open with mode 0600, whatever the umask is: a statement holds usage and salts."""
    descriptor = os.open(path, flags, 0o600)
    # Also one that a process with the same number left.
    os.fchmod(descriptor, 0o600)
    return descriptor
