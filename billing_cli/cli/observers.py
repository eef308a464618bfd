"""Who gets to know how a run went: the dead-man switch and the metrics file.

What they do never fails a run, never undoes one, and is no part of its result.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from billing_cli.errors import (
    EXIT_BUSY,
    EXIT_OK,
    EXIT_PARTIAL,
    BillingError,
    DatabaseUnavailableError,
    InterruptedBySignalError,
    UsageError,
)

if TYPE_CHECKING:
    from billing_cli.config.settings import Settings
    from billing_cli.core.result import RunResult
    from billing_cli.jobs.context import JobContext
    from billing_cli.jobs.ping import Pinger

# The dead-man switch is for the job that the timer starts.
PINGING_JOB = "collect"

# What is sent in place of these exit codes; None is no ping. A source that is down has alerts of
# its own: it must not keep the switch raised, which could raise no alarm when the timer is gone. A
# busy run sends nothing: whoever holds the sources pings, or the switch is to be raised.
PINGED_INSTEAD = {EXIT_PARTIAL: EXIT_OK, EXIT_BUSY: None}


class Observers:
    """Called when a run begins and when it ends; not for a dry run."""

    def __init__(self) -> None:
        self._pinger: Pinger | None = None
        self._context: JobContext | None = None
        self._metrics_file: Path | None = None

    def begin(self, settings: Settings, context: JobContext, job: str) -> None:
        """Report a run that is about to begin."""
        if settings.metrics_file is not None:
            self._context, self._metrics_file = context, Path(settings.metrics_file)
        if settings.ping_url is not None and job == PINGING_JOB:
            from billing_cli.jobs.ping import Pinger  # noqa: PLC0415 - most runs need none

            self._pinger = Pinger(settings.ping_url.get_secret_value())
            self._pinger.begin()

    def end(self, result: RunResult, exit_code: int, error: BaseException | None = None) -> None:
        """Report how a run ended; `error` is what it was ended by, if anything.

        A command line that asks for what can't be is no run. A signal that comes now ends the
        report; the run is over, and its exit code stands.
        """
        from billing_cli import logs  # noqa: PLC0415

        logger = logs.get_logger()
        is_run = not isinstance(error, UsageError)
        with suppress(InterruptedBySignalError):
            if self._pinger is not None:
                self._pinger.end(PINGED_INSTEAD.get(exit_code, exit_code) if is_run else None)
            if is_run and self._context is not None and self._metrics_file is not None:
                try:
                    _write_metrics(self._metrics_file, self._context, result, error)
                except Exception as problem:  # noqa: BLE001 - the run itself went as it went
                    reason = getattr(problem, "strerror", None) or str(problem)
                    logger.warning(
                        "metrics not written", file=str(self._metrics_file), error=reason
                    )
            if self._pinger is not None:
                for text in self._pinger.wait():
                    logger.warning("ping failed", error=text)


def _write_metrics(
    path: Path, context: JobContext, result: RunResult, error: BaseException | None
) -> None:
    from billing_cli import logs  # noqa: PLC0415
    from billing_cli.cli.metrics import metrics_text  # noqa: PLC0415
    from billing_cli.cli.textfile import (  # noqa: PLC0415
        present_content,
        replace_file,
        sole_writer,
    )
    from billing_cli.jobs.metrics import read_metrics  # noqa: PLC0415

    with sole_writer(path):
        stored = None
        is_database_up: bool | None = None
        if isinstance(error, DatabaseUnavailableError):
            is_database_up = False
        elif not isinstance(error, InterruptedBySignalError):
            try:
                stored = read_metrics(context)
                is_database_up = True
            except BillingError as problem:
                is_database_up = not isinstance(problem, DatabaseUnavailableError)
                logs.get_logger().warning("metrics without the database", error=str(problem))
        content = metrics_text(
            result,
            stored,
            is_database_up=is_database_up,
            version=context.version,
            present=present_content(path),
        )
        replace_file(path, content)
