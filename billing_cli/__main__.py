"""The entry point: `billing` and `python -m billing_cli`."""

from __future__ import annotations

import gc
import sys

import click

from billing_cli.commands.root import cli
from billing_cli.commands.running import raise_on_signals
from billing_cli.errors import BillingError, InterruptedBySignalError


def main() -> None:
    """Run the command line and exit with the code that the contract gives the outcome."""
    raise_on_signals()
    # A run builds large plain structures and ends; looking for cycles in them costs a third of
    # its time and finds nothing.
    gc.disable()
    try:
        cli.main(prog_name="billing", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except BillingError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(error.exit_code)
    except click.Abort as abort:
        # Click makes this of every KeyboardInterrupt, which is what our signals are raised as.
        if not isinstance(abort.__cause__, InterruptedBySignalError):
            raise
        click.echo(f"Error: {abort.__cause__}", err=True)
        sys.exit(abort.__cause__.exit_code)


if __name__ == "__main__":
    main()
