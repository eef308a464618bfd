"""Every failure that ends a run: its code, its exit code and its exception.

The exit codes follow the command line contract and, where they can, sysexits.h. The codes are what
programs read from `error.code` of a JSON result; they never change. docs/errors.md lists them.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from billing_cli.config.redaction import redact
from billing_cli.printable import printable

if TYPE_CHECKING:
    from billing_cli.core.result import RunResult

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_PARTIAL = 3
EXIT_UNAVAILABLE = 69
EXIT_OUTPUT = 74
EXIT_BUSY = 75
EXIT_CONFIG = 78
EXIT_SIGNAL_BASE = 128

EXIT_CODES = {
    "failed": EXIT_FAILED,
    "unexpected": EXIT_FAILED,
    "sources_failed": EXIT_FAILED,
    "sources_unreachable": EXIT_UNAVAILABLE,
    "database_failed": EXIT_FAILED,
    "database_timeout": EXIT_FAILED,
    "database_constraint": EXIT_FAILED,
    "database_unavailable": EXIT_UNAVAILABLE,
    "usage": EXIT_USAGE,
    "configuration": EXIT_CONFIG,
    "schema": EXIT_CONFIG,
    "privileges": EXIT_CONFIG,
    "busy": EXIT_BUSY,
    "locked": EXIT_FAILED,
    "file": EXIT_FAILED,
    "output": EXIT_OUTPUT,
    "interrupted": EXIT_SIGNAL_BASE,
}
"""The exit code of each error code; a signal's number is added to that of `interrupted`."""


class BillingError(Exception):
    """The run failed and nothing of it is stored. The text is one line and holds no secret.

    `code` is one of EXIT_CODES. Where a run of several transactions committed some of them before,
    `so_far` says what of it is stored all the same.

    Part of a text may be what a server said, and a server may repeat the password that it got;
    so whatever is known as a secret is taken out here, and what can't be printed is escaped,
    wherever the error goes. `line_break` is what may separate the lines of a text.
    """

    code = "failed"
    line_break = ""
    so_far: RunResult | None = None

    def __init__(self, text: str, code: str | None = None) -> None:
        super().__init__(printable(redact(text), keep=self.line_break))
        if code is not None:
            self.code = code

    @property
    def exit_code(self) -> int:
        """Return the exit code of the process."""
        return EXIT_CODES[self.code]


class UsageError(BillingError):
    """The command line asks for something that cannot be, such as an unknown source."""

    code = "usage"


class ConfigurationError(BillingError):
    """A configured value is wrong. The text names the key and where it came from."""

    code = "configuration"


class OutputError(BillingError):
    """What was to be done is done, but a file did not take the result."""

    code = "output"


class SchemaError(BillingError):
    """The database's schema is not what this version needs."""

    code = "schema"


class DatabaseUnavailableError(BillingError):
    """PostgreSQL could not be reached, or went away and stayed away."""

    code = "database_unavailable"


ENDING_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class InterruptedBySignalError(KeyboardInterrupt):
    """One of the ENDING_SIGNALS arrived. A KeyboardInterrupt, so that drivers cancel what they do.

    `so_far` is as in BillingError.
    """

    code = "interrupted"
    so_far: RunResult | None = None

    def __init__(self, signal_number: int) -> None:
        name = signal.Signals(signal_number).name
        super().__init__(f"ended by {name}; what was not committed is rolled back")
        self.signal_number = signal_number
        self.exit_code = EXIT_CODES[self.code] + signal_number
