"""The jobs as errands: what is run, and what the books must know about it."""

from __future__ import annotations

import uuid
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from billing_cli.core.times import MINUTE
from billing_cli.features.held.job import list_held, reject_held, release_held
from billing_cli.features.rerate.job import Order, rerate
from billing_cli.jobs.catch_up import catch_up
from billing_cli.jobs.collect import collect
from billing_cli.jobs.context import FetchPolicy
from billing_cli.jobs.reconcile import reconcile
from tests.torture.findings import require
from tests.torture.ground import START, Errand

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from billing_cli.core.result import RunResult
    from billing_cli.features.held.result import HeldDelta
    from billing_cli.jobs.context import JobContext
    from tests.torture.ground import Ground

HOUR_SECONDS = 3900.0

SMALL_STEPS = (
    FetchPolicy(),
    FetchPolicy(step_max_samples=1, page_limit=2),
    FetchPolicy(step_max_samples=40, page_limit=3),
)


def errand(ground: Ground, kind: str, number: int = 0, *, is_dry: bool = False) -> Errand:
    """Return one of the jobs; the number chooses sources, ranges and the size of steps."""
    if kind == "reconcile":
        return reconciling(ground, number, is_dry=is_dry)
    if kind == "rerate":
        return rerating(ground, number, is_dry=is_dry)
    chosen = list(ground.fleet.nodes)[:1] if number % 4 == 3 else []
    job: Any = collect if kind == "collect" else catch_up
    return Errand(
        kind,
        partial(job, source_ids=chosen, dry_run=is_dry),
        fetching=SMALL_STEPS[number % len(SMALL_STEPS)],
    )


def reconciling(ground: Ground, number: int = 0, *, is_dry: bool = False) -> Errand:
    """Compare all of history, or the part of it that the number says."""
    since, until = START, ground.now + MINUTE
    if number % 3 == 1:
        since = ground.now - timedelta(minutes=10 + number)
    elif number % 3 == 2:
        until = ground.now - timedelta(minutes=number)
        since = min(since, until)
    return _reconciling(since, until, is_dry=is_dry)


def reconciling_since(ground: Ground, since: datetime) -> Errand:
    """Compare what history shows from a moment on."""
    return _reconciling(since, ground.now + MINUTE)


def _reconciling(since: datetime, until: datetime, *, is_dry: bool = False) -> Errand:
    def job(context: JobContext) -> RunResult:
        return reconcile(context, since=_begun(context, since), until=until, dry_run=is_dry)

    return Errand("reconcile", job)


def _begun(context: JobContext, since: datetime) -> datetime:
    """Return where a range begins: never in the future of billing's clock, which is refused."""
    return min(since, context.clock())


def rerating(ground: Ground, number: int = 0, *, is_dry: bool = False) -> Errand:
    """Bring all charges, or those of the last minutes, to the present prices."""
    since = START if number % 2 else ground.now - timedelta(minutes=number)
    return rerating_since(ground, since, is_dry=is_dry)


def rerating_since(ground: Ground, since: datetime, *, is_dry: bool = False) -> Errand:
    """Bring the charges from a moment on to the present prices."""
    until = max(since, ground.now)
    version = str(uuid.UUID(int=ground.rng.getrandbits(128), version=4))

    def job(context: JobContext) -> RunResult:
        order = Order(_begun(context, since), until, version, "torture")
        return rerate(context, order, dry_run=is_dry)

    return Errand("rerate", job)


def deciding(ground: Ground, number: int, *, is_released: bool) -> Errand | None:
    """Release or reject one of the held deltas that somebody can be charged for."""
    payers = {user.uuid for user in ground.fleet.users}
    reading = Errand("held", partial(_listed))
    ground.work(reading)
    listed: Sequence[HeldDelta] = reading.result  # type: ignore[assignment]
    found = [held for held in listed if held.account_uuid in payers]
    if not found:
        return None
    chosen = found[number % len(found)]
    decide = release_held if is_released else reject_held
    return Errand("decision", partial(decide, held_ids=[chosen.held_id], reason="torture"))


def settle(ground: Ground, seconds: float = 900) -> None:
    """Let all faults end, and run what brings back everything that flowed (I6).

    So many seconds pass first, in which what was to last a while comes to its end; then an hour, in
    which snapshots that may be of another clock are decided.
    """
    for node in ground.fleet.nodes.values():
        node.clock_error = timedelta()
        endpoint = ground.running[node.source_id]
        endpoint.down, endpoint.status, endpoint.windowed = False, None, True
        endpoint.order = "rising"
    ground.elapse(seconds, 60)
    ground.elapse(HOUR_SECONDS, 60, activity=0.1)
    ground.elapse(180, 60, activity=0)
    for kind in ("catch-up", "reconcile", "catch-up"):
        ground.work(errand(ground, kind))
        ground.check()
    again = reconciling(ground)
    ground.work(again)
    if again.result is not None and again.result.corrections:
        require([f"a second reconcile corrects {again.result.corrections} records"])
    ground.check_settled()


def _listed(context: Any) -> Any:
    return list_held(context).deltas
