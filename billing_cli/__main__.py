"""The entry point: `billing` and `python -m billing_cli`."""

from __future__ import annotations

import gc
import os
import sys
from typing import NoReturn

import click

from billing_cli.cli.root import SUMMARIES, cli
from billing_cli.cli.running import raise_on_signals
from billing_cli.config.redaction import redact
from billing_cli.errors import EXIT_FAILED, BillingError, InterruptedBySignalError


def main() -> None:
    """Run the command line and exit with the code that the contract gives the outcome."""
    _keep_standard_streams()
    raise_on_signals()
    # A run builds large plain structures and ends; looking for cycles in them costs a third of
    # its time and finds nothing.
    gc.disable()
    try:
        cli.main(prog_name="billing", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        _end(error.format_message(), error.exit_code)
    except BillingError as error:
        click.echo(f"Error: {error}", err=True)
        _end(str(error), error.exit_code)
    except click.Abort as abort:
        # Click makes this of every KeyboardInterrupt, which is what our signals are raised as.
        if not isinstance(abort.__cause__, InterruptedBySignalError):
            raise
        click.echo(f"Error: {abort.__cause__}", err=True)
        _end(str(abort.__cause__), abort.__cause__.exit_code)
    except Exception as error:  # noqa: BLE001 - a bug of ours, told in one line all the same
        click.echo(_bug_report(error), err=True)
        sys.exit(EXIT_FAILED)


def _bug_report(error: Exception) -> str:
    """Say what went wrong and where; all of it at debug level. What is secret stays masked."""
    import traceback  # noqa: PLC0415 - only where it is needed

    if "debug" in sys.argv:
        return redact("".join(traceback.format_exception(error)))
    last = traceback.extract_tb(error.__traceback__)[-1]
    place = f"{os.path.basename(last.filename)}:{last.lineno}"  # noqa: PTH119 - pathlib costs time
    return redact(
        f"Error: unexpected {type(error).__name__} at {place}: this is a bug in billing; "
        "--log-level debug tells more"
    )


def _end(reason: str, exit_code: int) -> NoReturn:
    """Exit; whoever asked for JSON gets its one object also where no command came to print it."""
    if "--json" in sys.argv:
        import json  # noqa: PLC0415 - only where it is needed
        from datetime import UTC, datetime  # noqa: PLC0415
        from uuid import uuid4  # noqa: PLC0415

        from billing_cli.core.result import RunResult, result_object  # noqa: PLC0415

        job = next((name for name in sys.argv if name in SUMMARIES), "")
        now = datetime.now(UTC)
        failed = RunResult(job, str(uuid4()), "error", now, now, error=" ".join(reason.split()))
        click.echo(json.dumps(result_object(failed)))
    sys.exit(exit_code)


def _keep_standard_streams() -> None:
    """Open what our parent closed, so that no connection of ours takes the number of a stream.

    What a library then wrote to stderr would go to the database.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


if __name__ == "__main__":
    main()
