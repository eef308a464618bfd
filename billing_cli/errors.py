"""Every failure that ends a run: one exception, one exit code.

The codes follow the command line contract and, where they can, sysexits.h.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from billing_cli.config.redaction import redact

if TYPE_CHECKING:
    from billing_cli.core.result import RunResult

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_PARTIAL = 3
EXIT_UNAVAILABLE = 69
EXIT_BUSY = 75
EXIT_CONFIG = 78
EXIT_SIGNAL_BASE = 128


class BillingError(Exception):
    """The run failed and nothing of it is stored. The text is one line and holds no secret.

    Where a run of several transactions had come to some end before, `so_far` tells what of it is
    stored all the same.

    Part of a text may be what a server said, and a server may repeat the password that it got;
    so whatever is known as a secret is taken out here, wherever the error goes.
    """

    exit_code = EXIT_FAILED
    so_far: RunResult | None = None

    def __init__(self, text: str) -> None:
        super().__init__(redact(text))


class UsageError(BillingError):
    """The command line asks for something that cannot be, such as an unknown source."""

    exit_code = EXIT_USAGE


class ConfigurationError(BillingError):
    """A configured value is wrong. The text names the key and where it came from."""

    exit_code = EXIT_CONFIG


class SchemaError(BillingError):
    """The database's schema is not what this version needs."""

    exit_code = EXIT_CONFIG


class DatabaseUnavailableError(BillingError):
    """PostgreSQL could not be reached, or went away and stayed away."""

    exit_code = EXIT_UNAVAILABLE


class InterruptedBySignalError(KeyboardInterrupt):
    """SIGTERM or SIGINT arrived. A KeyboardInterrupt, so that drivers cancel what they do.

    `so_far` is as in BillingError.
    """

    so_far: RunResult | None = None

    def __init__(self, signal_number: int) -> None:
        name = signal.Signals(signal_number).name
        super().__init__(f"ended by {name}; what was not committed is rolled back")
        self.signal_number = signal_number
        self.exit_code = EXIT_SIGNAL_BASE + signal_number
