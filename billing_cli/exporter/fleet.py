"""Many sources concurrently: as many at once as allowed, none beyond the run's deadline."""

from __future__ import annotations

import functools
import queue
import threading
import time
from typing import TYPE_CHECKING, TypeVar

from billing_cli.exporter.api import ExporterError
from billing_cli.exporter.client import fetch
from billing_cli.exporter.limits import DEFAULT_LIMITS, Limits
from billing_cli.exporter.tls import TlsContexts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from datetime import datetime

    from billing_cli.exporter.api import Fetched, FetchRequest
    from billing_cli.exporter.credentials import SecretToken, TokenReference

Task = TypeVar("Task")
Answer = TypeVar("Answer")

# What a source that ends at the deadline by itself needs to say so in its own words.
_GRACE_SECONDS = 0.25


def fetch_all(
    requests: Sequence[FetchRequest],
    *,
    now: datetime,
    concurrency: int,
    deadline_seconds: float,
    default_token: SecretToken | TokenReference | None,
    environ: Mapping[str, str] | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> Iterator[tuple[str, Fetched | ExporterError]]:
    """Yield each request's source id with what it answered or why it did not, as they finish.

    Every request is answered for exactly once. The deadline counts from the first step of the
    iteration; what is not there by then is an unreachable source. Apart from the sources' own
    timeouts nothing delays the others, provided that `concurrency` exceeds the number of
    sources that are down at the same time.
    """
    answers = concurrently(
        requests,
        functools.partial(
            fetch,
            now=now,
            default_token=default_token,
            environ=environ,
            contexts=TlsContexts(),
            limits=limits,
        ),
        concurrency=concurrency,
        deadline_seconds=deadline_seconds,
    )
    for request, answer in answers:
        yield request.source.source_id, answer


def concurrently(
    tasks: Sequence[Task],
    work: Callable[..., Answer],
    *,
    concurrency: int,
    deadline_seconds: float,
) -> Iterator[tuple[Task, Answer | ExporterError]]:
    """Yield each task with what `work(task, deadline=...)` returned or why it failed.

    They come as they finish, every task once; the deadline that `work` is given is a monotonic
    second. Whatever `work` raises becomes an ExporterError.

    The threads are daemons: neither a look-up that hangs nor a signal keeps the process alive,
    and an iteration that is given up leaves nothing to wait for.
    """
    deadline = time.monotonic() + deadline_seconds
    waiting: queue.SimpleQueue[tuple[int, Task]] = queue.SimpleQueue()
    finished: queue.SimpleQueue[tuple[int, Answer | ExporterError]] = queue.SimpleQueue()
    given_up = threading.Event()

    def work_through() -> None:
        while not given_up.is_set() and time.monotonic() < deadline:
            try:
                position, task = waiting.get_nowait()
            except queue.Empty:
                return
            finished.put((position, _outcome(functools.partial(work, task, deadline=deadline))))

    pending = dict(enumerate(tasks))
    for entry in pending.items():
        waiting.put(entry)
    for number in range(min(max(1, concurrency), len(tasks))):
        threading.Thread(target=work_through, name=f"exporter-{number}", daemon=True).start()
    try:
        while pending:
            left = deadline + _GRACE_SECONDS - time.monotonic()
            try:
                position, answer = finished.get(timeout=max(0.0, left))
            except queue.Empty:
                break
            yield pending.pop(position), answer
    finally:
        given_up.set()
    for task in pending.values():
        reason = f"not finished at the run's deadline of {deadline_seconds:g} s"
        yield task, ExporterError(reason, code="timeout", unreachable=True)


def _outcome(work: Callable[[], Answer]) -> Answer | ExporterError:
    try:
        return work()
    except ExporterError as error:
        reason, code, unreachable = error.reason, error.code, error.unreachable
    except Exception as error:  # noqa: BLE001 - the other sources go on, whatever this was
        # Neither the text nor the traceback: either may hold what must not be shown.
        reason = f"unexpected {type(error).__name__} while fetching"
        code, unreachable = "failed", False
    # Made anew out here, without a traceback whose frames would keep whole answers in memory.
    return ExporterError(reason, code=code, unreachable=unreachable)
