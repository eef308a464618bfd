"""What every subcommand shares: set-up, output and the exit code."""

from __future__ import annotations

import json
import os
import signal
import sys
import uuid
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from billing_cli.config.redaction import redact
from billing_cli.errors import (
    ENDING_SIGNALS,
    EXIT_BUSY,
    EXIT_CODES,
    EXIT_FAILED,
    EXIT_OK,
    EXIT_PARTIAL,
    BillingError,
    InterruptedBySignalError,
    UsageError,
)
from billing_cli.output import give_up_stdout, require_stdout
from billing_cli.printable import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from billing_cli.cli.observers import Observers
    from billing_cli.cli.root import Options
    from billing_cli.cli.tables import Part
    from billing_cli.config.settings import Settings
    from billing_cli.core.result import RunResult
    from billing_cli.core.shard import Shard
    from billing_cli.jobs.context import JobContext

Result = TypeVar("Result", bound="RunResult")


def run_job(
    options: Options,
    job: str,
    as_json: bool,
    work: Callable[[JobContext], Result],
    *,
    dry_run: bool = False,
    text_of: Callable[[Result], Sequence[Part]] | None = None,
    files_checked: bool = True,
) -> NoReturn:
    """Run a job, print its result, and exit with the code that the contract gives it.

    `text_of` returns as text what a job did that is not about sources.
    """
    from billing_cli.cli.observers import Observers  # noqa: PLC0415
    from billing_cli.core.result import RunResult  # noqa: PLC0415

    run_id, started_at = str(uuid.uuid4()), datetime.now(UTC)
    observers = Observers()

    def failed(reason: str, code: str) -> RunResult:
        return RunResult(
            job,
            run_id,
            "error",
            started_at,
            datetime.now(UTC),
            dry_run=dry_run,
            error=reason,
            error_code=code,
        )

    try:
        settings = open_settings(options, job, run_id, files_checked=files_checked)
        context = context_from(settings, job, run_id)
        if not dry_run:
            observers.begin(settings, context, job)
        result = replace(work(context), currency=context.currency)
    except (BillingError, InterruptedBySignalError) as error:
        failure = error.so_far or failed(str(error), error.code)
        with _shown(observers, failure, error.exit_code, error):
            _print_failure(failure, as_json, text_of)
        sys.exit(error.exit_code)
    except Exception as error:  # noqa: BLE001 - a bug of ours, reported like any failure
        failure = failed(f"unexpected {type(error).__name__}", "unexpected")
        with _shown(observers, failure, EXIT_FAILED, error):
            click.echo(bug_report(error), err=True)
            if as_json:
                _print(failure, as_json, None)
        sys.exit(EXIT_FAILED)
    if not dry_run:
        require_stdout()
    with _shown(observers, result, exit_code_of(result)):
        _log(result)
        _print(result, as_json, text_of)
    sys.exit(exit_code_of(result))


@contextmanager
def _shown(
    observers: Observers, result: RunResult, exit_code: int, error: BaseException | None = None
) -> Iterator[None]:
    """Let the block show how a run ended; tell the observers.

    A signal that comes now ends what is shown. The run is over, and its outcome stands.
    """
    try:
        yield
    except InterruptedBySignalError as signalled:
        give_up_stdout(signal.Signals(signalled.signal_number).name)
    finally:
        observers.end(result, exit_code, error)


def in_shard(context: JobContext, source_ids: Sequence[str], shard: Shard | None) -> JobContext:
    """Return the context with the shard of the command line. Raises UsageError with sources."""
    if shard is None:
        return context
    if source_ids:
        raise UsageError("--shard conflicts with --source: a named source is worked on anyway")
    return replace(context, shard=shard)


def exit_code_of(result: RunResult) -> int:
    """Return the exit code of a run that ended by itself."""
    if result.status == "error":
        return EXIT_CODES[result.error_code or "failed"]
    return {"ok": EXIT_OK, "partial": EXIT_PARTIAL, "busy": EXIT_BUSY}[result.status]


def _print(
    result: Result, as_json: bool, text_of: Callable[[Result], Sequence[Part]] | None
) -> None:
    if as_json:
        from billing_cli.core.result import result_object  # noqa: PLC0415

        click.echo(json.dumps(result_object(result)))
        return
    from billing_cli.cli.printing import print_parts  # noqa: PLC0415
    from billing_cli.cli.text import run_parts  # noqa: PLC0415

    print_parts(text_of(result) if text_of else run_parts(result))


def _print_failure(
    result: RunResult, as_json: bool, text_of: Callable[[Any], Sequence[Part]] | None
) -> None:
    """Print why a run failed, and what is stored of it all the same."""
    if as_json or result.steps:
        _print(result, as_json, text_of)
    if not as_json:
        message = printable(result.error or "", keep="\n")
        click.echo(f"Error: {message}", err=True)


def bug_report(error: Exception) -> str:
    """Say what went wrong and where; all of it at debug level. What is secret stays masked."""
    import traceback  # noqa: PLC0415 - only where it is needed

    from billing_cli import logs  # noqa: PLC0415

    # The configuration may not have been read yet.
    given = " ".join(sys.argv).replace("=", " ").lower()
    if logs.level() == "debug" or "--log-level debug" in given:
        return printable(redact("".join(traceback.format_exception(error))), keep="\n")
    last = traceback.extract_tb(error.__traceback__)[-1]
    place = f"{os.path.basename(last.filename)}:{last.lineno}"  # noqa: PTH119 - pathlib costs time
    return redact(
        f"Error: unexpected {type(error).__name__} at {place}: this is a bug in billing; "
        "--log-level debug adds a traceback"
    )


def _log(result: RunResult) -> None:
    """Log what became of the sources, and the run as one line."""
    from billing_cli import logs  # noqa: PLC0415

    logger = logs.get_logger()
    for source in result.sources:
        with logs.bound_source(source.source_id):
            if source.error:
                logger.error("source failed", error=source.error)
            for note in source.notes:
                logger.warning("note", note=note)
    for note in result.notes:
        logger.warning("note", note=note)
    logger.info(
        "run finished",
        status=result.status,
        dry_run=result.dry_run,
        samples=result.processed_samples,
        minutes=result.written_minutes,
        included_bytes=result.included_bytes,
        charged_bytes=result.charged_bytes,
        amount=f"{result.amount:f}",
        seconds=(result.finished_at - result.started_at).total_seconds(),
    )


def open_settings(
    options: Options, job: str, run_id: str, *, files_checked: bool = True
) -> Settings:
    """Load the configuration and start logging. Raises ConfigurationError."""
    from billing_cli import logs  # noqa: PLC0415
    from billing_cli.config.layers import variables_of  # noqa: PLC0415
    from billing_cli.config.problems import ignored_variables  # noqa: PLC0415
    from billing_cli.config.settings import load_settings  # noqa: PLC0415

    settings = load_settings(options.config_path, os.environ, files_checked=files_checked)
    logs.configure(
        options.log_level or settings.log_level, options.log_format or settings.log_format
    )
    logs.bind_run(run_id, job)
    for line in ignored_variables(os.environ, variables_of(type(settings))):
        logs.get_logger().warning(line)
    if ignored := settings.ignored_parameters():
        logs.get_logger().warning(f"DATABASE_URL: parameters of Go drivers are ignored: {ignored}")
    return settings


def open_context(
    options: Options, job: str, run_id: str, *, files_checked: bool = True
) -> JobContext:
    """Return what a job needs, from the configuration. Raises ConfigurationError."""
    return context_from(
        open_settings(options, job, run_id, files_checked=files_checked), job, run_id
    )


def context_from(settings: Settings, job: str, run_id: str) -> JobContext:
    """Return what a job needs, from loaded settings. Raises ConfigurationError."""
    from billing_cli.jobs.opening import context_of  # noqa: PLC0415

    return context_of(settings, job, run_id)


def raise_on_signals() -> None:
    """Turn signals that end a run into an exception: the open transaction is rolled back.

    One that whoever started us has ignored stays so: `nohup` does it with SIGHUP.
    """

    def on_signal(signal_number: int, _frame: object) -> NoReturn:
        raise InterruptedBySignalError(signal_number)

    for number in ENDING_SIGNALS:
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, on_signal)
