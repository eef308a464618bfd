"""`collect` against the floor, in turns: every stream moving, none, from one source or from many.

All databases stand in one server, and each round measures every one of them, so that a ratio
compares what was measured within the same minute. A writer that goes row by row runs beside.
"""

from __future__ import annotations

from collections import defaultdict
from contextlib import ExitStack
from typing import TYPE_CHECKING

from benchmarks.exporter import MINUTE, Fleet, minutes_ago
from benchmarks.floor import OWN, SHARED, Floor
from benchmarks.measure import billing_cost, median_cost, median_ratio
from benchmarks.naive import write_naively
from benchmarks.sizes import short
from benchmarks.storage import CHECKPOINTS, read_storage
from benchmarks.world import running_world

if TYPE_CHECKING:
    from benchmarks.measure import Cost
    from benchmarks.results import Results
    from benchmarks.sizes import Sizes
    from benchmarks.world import World
    from billing_cli.simulator.postgres import EmbeddedPostgres

# Runs are at most this many minutes behind, so that none of their snapshots is in the future.
MINUTES_BACK = 60

Costs = dict[str, list["Cost"]]


def run(server: EmbeddedPostgres, sizes: Sizes, results: Results) -> None:
    """Measure in rounds."""
    largest = sizes.active[-1]
    start = minutes_ago(MINUTES_BACK)
    with ExitStack() as stack:
        fleets = [Fleet(start, streams) for streams in sizes.active]
        fleets.append(Fleet(start, largest // sizes.sources, sizes.sources))
        worlds = [
            stack.enter_context(running_world(server, fleet, f"bench{number}"))
            for number, fleet in enumerate(fleets)
        ]
        floors = [_begin(world) for world in worlds]
        costs: Costs = defaultdict(list)
        for number in range(sizes.rounds):
            for world, floor in zip(worlds, floors, strict=True):
                _round(world, floor, number, costs, is_largest=world is worlds[-2])
            naive = write_naively(
                worlds[-2],
                worlds[-2].fleet.accounts()[: sizes.naive_samples],
                start + number * MINUTE,
            )
            costs["naive"].append(naive)
        storage = read_storage(worlds[-2], CHECKPOINTS)
    _report(sizes, costs, results)
    for one in storage:
        results.stored(one)


def _begin(world: World) -> Floor | None:
    """Let the streams be known and every account be charged once."""
    for minute in (0, 1):
        world.exporter.offer(minute)
        world.billing("collect")
    return Floor(world) if world.fleet.sources == 1 else None


def _round(
    world: World, floor: Floor | None, number: int, costs: Costs, *, is_largest: bool
) -> None:
    """Measure floor and job, one first in this round and the other in the next."""
    world.vacuum()
    if floor and number % 2 == 0:
        _write_floors(world, floor, number, costs)
    _collect(world, number, costs, is_largest=is_largest)
    if floor and number % 2 == 1:
        _write_floors(world, floor, number, costs)


def _write_floors(world: World, floor: Floor, number: int, costs: Costs) -> None:
    at = world.fleet.start + 2 * number * MINUTE
    costs[f"all {_key(world)}"].append(floor.write(at, *SHARED, *OWN))
    costs[f"shared {_key(world)}"].append(floor.write(at + MINUTE, *SHARED))


def _collect(world: World, number: int, costs: Costs, *, is_largest: bool) -> None:
    """Let every stream move; in the largest world, also let a minute pass in which none does."""
    minute = 2 + number * (2 if is_largest else 1)
    world.exporter.offer(minute)
    streams = world.fleet.sources * world.fleet.streams
    costs[f"active {_key(world)}"].append(_collected(world, streams))
    if is_largest:
        world.exporter.offer(minute + 1, moving=False)
        costs[f"idle {_key(world)}"].append(_collected(world, 0))


def _key(world: World) -> str:
    return f"{world.fleet.sources}x{world.fleet.streams}"


def _collected(world: World, minutes: int) -> Cost:
    result, cost = billing_cost(world, "collect")
    assert (result["status"], result["written_minutes"]) == ("ok", minutes), result
    return cost


def _report(sizes: Sizes, costs: Costs, results: Results) -> None:
    typical = {key: median_cost(values) for key, values in costs.items()}
    largest = f"1x{sizes.active[-1]}"
    floor_rows, rows = (typical[f"{kind} {largest}"].rows for kind in ("all", "active"))
    # `collect` also writes a seal, and keeps the totals of the source.
    assert rows - floor_rows in {1, 2}, f"the floor writes {floor_rows} rows, collect {rows}"
    for streams in sizes.active:
        key, size = f"1x{streams}", short(streams)
        results.run(f"floor, {size}, shared tables", typical[f"shared {key}"], streams)
        results.run(f"floor, {size}, all tables", typical[f"all {key}"], streams)
        results.run(f"`collect`, {size} active", typical[f"active {key}"], streams)
        ratio = median_ratio(costs[f"active {key}"], costs[f"all {key}"])
        limit = "active" if key == largest else ""
        results.figure(f"`collect`, {size} active", ratio, "x floor, all tables", limit)
        ratio = median_ratio(costs[f"active {key}"], costs[f"shared {key}"])
        results.figure(f"`collect`, {size} active", ratio, "x floor, shared tables")
    large, small = sizes.active[-1], sizes.active[-2]
    ratio = median_ratio(costs[f"active {largest}"], costs[f"active 1x{small}"])
    results.figure(f"`collect`, {short(large)} active", ratio, f"x {short(small)} active", "linear")
    peak = typical[f"active {largest}"].peak_megabytes or 0.0
    results.figure(f"`collect`, {short(large)} active", peak, "MB of memory", "active memory")

    idle = typical[f"idle {largest}"]
    what = f"`collect`, {short(large)} idle"
    results.run(what, idle, large)
    ratio = median_ratio(costs[f"idle {largest}"], costs[f"all {largest}"])
    results.figure(what, ratio, "x floor, all tables", "idle")
    ratio = median_ratio(costs[f"idle {largest}"], costs[f"shared {largest}"])
    results.figure(what, ratio, "x floor, shared tables")
    results.figure(what, idle.rows or 0, "rows written", "idle rows")

    each = large // sizes.sources
    what = f"`collect`, {sizes.sources} sources x {short(each)}"
    many = f"active {sizes.sources}x{each}"
    results.run(what, typical[many], large)
    ratio = median_ratio(costs[many], costs[f"active {largest}"])
    results.figure(what, ratio, f"x one source of {short(large)}")

    _report_capacity(
        typical[f"active {largest}"], typical[f"active 1x{small}"], large, small, results
    )
    naive = typical["naive"]
    results.run("row by row, shared tables", naive, sizes.naive_samples)
    ratio = median_ratio(costs["naive"], costs[f"active {largest}"])
    results.figure(
        "row by row, each sample", ratio * large / sizes.naive_samples, "x `collect`, each sample"
    )


def _report_capacity(
    cost: Cost, smaller: Cost, streams: int, fewer_streams: int, results: Results
) -> None:
    """Say what a million active streams ask for in a minute, right after a checkpoint."""
    per_stream = {name: getattr(cost, name) / streams for name in ("rows", "wal_bytes", "seconds")}
    results.carries("statements of a run, whatever its size", f"{cost.statements}")
    if cost.peak_megabytes and smaller.peak_megabytes:
        slope = (cost.peak_megabytes - smaller.peak_megabytes) / (streams - fewer_streams) * 1000
        base = cost.peak_megabytes - slope * streams / 1000
        results.carries(
            "memory of a run", f"{base:.0f} MB, and {slope:.1f} MB for each 1,000 active streams"
        )
    results.carries(
        "active streams a minute for which one run takes 60 s",
        f"{60 / per_stream['seconds'] / 1000:,.0f} thousand",
    )
    results.carries("rows of a million active streams", f"{per_stream['rows']:.1f} million")
    results.carries(
        "WAL of a million active streams, right after a checkpoint",
        f"{per_stream['wal_bytes'] / 1e3:.2f} GB",
    )
