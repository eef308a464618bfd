"""Runs the command line, and reports what ends it before it could do so itself."""

from __future__ import annotations

import gc
import sys
from itertools import pairwise

import click

from billing_cli.cli.root import SUMMARIES, cli
from billing_cli.cli.running import bug_report, raise_on_signals
from billing_cli.errors import (
    EXIT_CODES,
    EXIT_OK,
    EXIT_OUTPUT,
    EXIT_PARTIAL,
    BillingError,
    InterruptedBySignalError,
)
from billing_cli.output import guard_standard_streams
from billing_cli.printable import printable

BEFORE_THE_COMMAND = {option for parameter in cli.params for option in parameter.opts}


def main() -> None:
    """Run the command line and exit with the code that the contract gives the outcome."""
    stdout = guard_standard_streams()
    raise_on_signals()
    # A run builds large plain structures and ends; looking for cycles in them costs a third of
    # its time and finds nothing.
    gc.disable()
    try:
        exit_code = _run()
    except SystemExit as ended:
        exit_code = ended.code if isinstance(ended.code, int) else EXIT_OK
    sys.stdout.flush()
    # A reader of a report that has seen enough, such as `head`, is no failure.
    is_required = stdout.is_required or _asks_for_json(sys.argv)
    has_seen_enough = isinstance(stdout.failure, BrokenPipeError) and not is_required
    if stdout.failure is not None and not has_seen_enough and exit_code in {EXIT_OK, EXIT_PARTIAL}:
        click.echo(
            f"Error: what was to be done is done, but stdout takes nothing: {stdout.failure}",
            err=True,
        )
        exit_code = EXIT_OUTPUT
    sys.exit(exit_code)


def _run() -> int:
    """Run the command, report what ends it before it could do so itself; return the exit code."""
    try:
        cli.main(prog_name="billing", standalone_mode=False)
    except click.ClickException as error:
        message = _usage_message(error)
        click.echo(f"Error: {message}", err=True)
        return _failed("usage", message)
    except BillingError as error:
        click.echo(f"Error: {error}", err=True)
        return _failed(error.code, str(error))
    except (click.Abort, InterruptedBySignalError) as error:
        # Click makes an Abort of every KeyboardInterrupt, which is what our signals are raised as.
        signalled = error if isinstance(error, InterruptedBySignalError) else error.__cause__
        if not isinstance(signalled, InterruptedBySignalError):
            raise
        click.echo(f"Error: {signalled}", err=True)
        _failed(signalled.code, str(signalled))
        return signalled.exit_code
    except Exception as error:  # noqa: BLE001 - a bug of ours, reported in one line all the same
        click.echo(bug_report(error), err=True)
        return _failed("unexpected", f"unexpected {type(error).__name__}")
    return EXIT_OK


def _usage_message(error: click.ClickException) -> str:
    """Return in one line what is wrong with the command line, and which help page says more."""
    if isinstance(error, click.NoSuchOption) and error.option_name in BEFORE_THE_COMMAND:
        return f"{error.option_name} goes before the command; see `billing --help`"
    context = error.ctx if isinstance(error, click.UsageError) else None
    page = context.command_path if context else "billing"
    return f"{_what_is_wrong(error, context)}; see `{page} --help`"


def _what_is_wrong(error: click.ClickException, context: click.Context | None) -> str:
    if context is not None and isinstance(error, click.exceptions.NoArgsIsHelpError):
        # Its message is the whole help page.
        is_root = context.parent is None
        names = () if is_root else context.command.list_commands(context)  # type: ignore[attr-defined]
        return f"Missing command{': ' if names else ''}{', '.join(names)}"
    nearest = getattr(error, "possibilities", None)
    text = f"{error.message} (did you mean {nearest[0]!r}?)" if nearest else error.format_message()
    # Click calls a type by the name of its class.
    text = text.replace("a valid integer range", "a whole number")
    text = text.replace("a valid float range", "a number")
    return printable(" ".join(text.split())).replace(". (did", " (did").rstrip(".")


def _failed(code: str, message: str) -> int:
    """Print the one JSON object where that was asked for; return the exit code."""
    arguments = sys.argv[1:]
    if _asks_for_json(arguments):
        import json  # noqa: PLC0415 - only where it is needed
        from datetime import UTC, datetime  # noqa: PLC0415
        from uuid import uuid4  # noqa: PLC0415

        from billing_cli.core.result import RunResult, result_object  # noqa: PLC0415

        now = datetime.now(UTC)
        failed = RunResult(
            _job(arguments), str(uuid4()), "error", now, now, error=message, error_code=code
        )
        click.echo(json.dumps(result_object(failed)))
    return EXIT_CODES[code]


def _asks_for_json(arguments: list[str]) -> bool:
    given = {*arguments, *(f"{option}={value}" for option, value in pairwise(arguments))}
    # `--json=1` is an error, whose report is JSON.
    return bool({"--json", "--output=json", "--format=json"} & given) or any(
        argument.startswith("--json=") for argument in arguments
    )


def _job(arguments: list[str]) -> str:
    """Return the job that a command line names, such as `collect` or `held-release`."""
    # What follows one of these is its value, even where it is called like a command.
    valued = {"--config", "--log-level", "--log-format"}
    where = next(
        (
            n
            for n, word in enumerate(arguments)
            if word in SUMMARIES and (n == 0 or arguments[n - 1] not in valued)
        ),
        None,
    )
    if where is None:
        return ""
    command = cli.get_command(click.Context(cli), arguments[where])
    rest = arguments[where + 1 : where + 2]
    if isinstance(command, click.Group) and rest and rest[0] in command.commands:
        return f"{arguments[where]}-{rest[0]}"
    return arguments[where]
