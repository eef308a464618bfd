"""`catch-up` over hours of history, against as many `collect` runs as it takes bounded steps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.exporter import Fleet, minutes_ago
from benchmarks.measure import billing_cost, median_cost
from benchmarks.storage import FACTS, read_storage
from benchmarks.world import running_world

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.measure import Cost
    from benchmarks.results import Results, Storage
    from benchmarks.sizes import Backlog, Sizes
    from billing_cli.simulator.postgres import EmbeddedPostgres

# Steps that `collect` takes beforehand: the first finds tables that are empty, and is not counted.
SINGLE_STEPS = 3


def run(server: EmbeddedPostgres, sizes: Sizes, results: Results) -> None:
    """Measure each backlog in a database of its own."""
    for backlog in sizes.backlogs:
        _measure(server, backlog, results)


def _measure(server: EmbeddedPostgres, backlog: Backlog, results: Results) -> None:
    step_minutes = backlog.step_max_samples // backlog.streams
    minutes = backlog.minutes + SINGLE_STEPS * step_minutes
    fleet = Fleet(minutes_ago(minutes + 5), backlog.streams, period=backlog.period)
    settings = {"BILLING_STEP_MAX_SAMPLES": str(backlog.step_max_samples)}
    with running_world(server, fleet) as world:
        world.exporter.offer(0)
        world.billing("collect")
        world.exporter.offer(minutes)
        world.billing("collect", settings=settings)
        world.vacuum()
        steps = [billing_cost(world, "collect", settings=settings) for _ in range(2)]
        result, cost = billing_cost(world, "catch-up", settings=settings)
        storage = read_storage(world, FACTS) if backlog.period == 1 else []
    assert result["status"] == "ok"
    step_samples = steps[-1][0]["processed_samples"]
    step = median_cost([one for _, one in steps])
    samples = result["processed_samples"]
    # The last step has less to do than the others: it counts for what it is.
    as_many_steps = samples / step_samples
    name = f"`catch-up`, {backlog.title}"
    results.run(f"one step of it, {backlog.title}", step, step_samples)
    results.run(f"{name}, {result['steps']} steps", cost, samples)
    results.figure(
        name, cost.seconds / (as_many_steps * step.seconds), "x as many single steps", "backlog"
    )
    results.figure(name, cost.peak_megabytes or 0.0, "MB of memory", "backlog memory")
    for one in storage:
        results.stored(one)
    if storage:
        _report_capacity(storage, cost, samples, results)


def _report_capacity(
    storage: Sequence[Storage], cost: Cost, samples: int, results: Results
) -> None:
    """Say what a million active streams leave behind in a minute, where no checkpoint is near."""
    tables, indexes = (
        sum(getattr(one, name) for one in storage) for name in ("table_bytes", "index_bytes")
    )
    wal = (cost.wal_bytes or 0) / samples
    results.carries("WAL of a million active streams, between checkpoints", f"{wal / 1e3:.2f} GB")
    results.carries(
        "disk of a million active streams",
        f"{tables / 1e3:.2f} GB in tables, {indexes / 1e3:.2f} GB in indexes",
    )
