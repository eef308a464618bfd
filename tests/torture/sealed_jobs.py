"""`seal`, `archive` and `prune` killed by SIGKILL, at a message of their line or after a time.

A round is a process of its own in a copy of a month that has everything to be done. Afterwards the
job is run once more to its end; then the log, the kept checkpoints, the archive and what is left of
the month must be what they are without a kill.
"""

from __future__ import annotations

import random
import shutil
import signal
import tempfile
import time
import uuid
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from billing_cli.archive_checks import check_archive
from billing_cli.core.notes import format_signer_key
from billing_cli.database.connecting import Database
from billing_cli.errors import EXIT_OK
from billing_cli.features.seal.job import seal
from billing_cli.features.verify.job import verify
from billing_cli.signatures import read_public_keys
from tests.integration.database.stage import eventually
from tests.support.relay import relayed
from tests.support.sealing import DAY, Sealing
from tests.support.story import told_story, unexplained
from tests.torture.kills import Strike
from tests.torture.tally import Tally
from tests.torture.trial import COUNT_RUNNING, chances, count
from tests.torture.verdict import Verdict
from tests.torture.writers import Fork

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from billing_cli.core.notes import SignerKey, VerifierKey
    from billing_cli.jobs.context import JobContext
    from tests.support.relay import Severance, Side
    from tests.torture.arena import Arena, Place

MONTH = "2026-04"
KEPT_SINCE = datetime(2026, 5, 1, tzinfo=UTC)
SHORTLY_BEFORE = datetime(2026, 4, 30, 23, 56, tzinfo=UTC)

# As many facts of the month as are archived or pruned, once each.
READ_ARCHIVED = "SELECT coalesce(sum(records + charges), 0)::bigint FROM billing.archives"
READ_PRUNED = "SELECT coalesce(sum(records + charges), 0)::bigint FROM billing.pruned"
# Two minutes of two streams, and three of the last run, as records and as charges.
FACTS_OF_MONTH = 2 * 2 * (2 + 3)
READ_WAITING = "SELECT count(*) FROM billing.seals WHERE leaf_number IS NULL"


@dataclass(frozen=True, slots=True)
class _Bench:
    """A directory with the key, checkpoints and archives, and what configures the commands."""

    directory: Path
    environment: Mapping[str, str]
    context: JobContext
    keys: tuple[SignerKey, VerifierKey]

    @property
    def checkpoints(self) -> Path:
        """Where `seal` appends."""
        return self.directory / "checkpoints"

    @property
    def archive(self) -> Path:
        """Where `archive` puts the month."""
        return self.directory / "archives" / MONTH

    def arguments(self, job: str) -> list[str]:
        """Return the command line of a job."""
        now = datetime.now(UTC)
        months = (now.year - KEPT_SINCE.year) * 12 + now.month - KEPT_SINCE.month
        to = str(self.checkpoints)
        return {
            "seal": ["seal", "--key-ref", f"file:{self.directory / 'key'}", "--to", to],
            "archive": ["archive", "--month", MONTH, "--to", str(self.archive.parent)],
            "prune": ["prune", "--keep", f"{months}mo", "--unproven", "--drop"],
        }[job]

    def run(self, job: str, place: Place, strike: Strike) -> tuple[int, Mapping[Side, int], float]:
        """Run a job as its own role; return its exit code, messages, and seconds from the first."""
        url = place.job_url if job == "archive" else place.database_url
        with relayed(url) as relay:
            relay.judge_message = strike
            writer = Fork(self.arguments(job), {**self.environment, "DATABASE_URL": relay.url})
            strike.takes_aim_at(writer)
            strike.waits()
            code = writer.wait()
            return code, dict(relay.messages), time.monotonic() - strike.began_at


def kill(arena: Arena, seed: int, rounds: int) -> list[Tally]:
    """Kill `seal`, `archive` or `prune`; a round is a kill."""
    total = Tally("SIGKILL of `seal`, `archive` or `prune`", 0)
    with _prepared(arena) as (bench, places, undisturbed):
        jobs = list(places)
        for number in chances(seed, rounds):
            rng = random.Random(number)  # noqa: S311 - a seed that replays is the point
            job = jobs[number % len(jobs)]
            strike = _strike(rng, *undisturbed[job])
            verdict = Verdict()
            with arena.database(copy_of=places[job]) as place, _copied(bench, job) as own:
                code, *_ = own.run(job, place, strike)
                eventually(lambda place=place: not count(place, COUNT_RUNNING))
                _judge(job, own, place, verdict)
            if not verdict.is_clean:
                verdict.tell("kill-sealed-jobs", number, f"{job}, killed at {strike.where}")
            if code == -signal.SIGKILL or not verdict.is_clean:
                total = total.plus(verdict.tally(total.fault))
            if total.runs == rounds:
                break
    return [total]


@contextmanager
def _prepared(
    arena: Arena,
) -> Iterator[tuple[_Bench, dict[str, Place], dict[str, tuple[Mapping[Side, int], float]]]]:
    """Bill a month, whose last run reaches into the next, up to each job; see how long each takes.

    Nobody is connected to the places any more: they are there to be copied.
    """
    with (
        tempfile.TemporaryDirectory() as name,
        arena.database() as billed,
    ):
        bench = _bill(billed, Path(name))
        with (
            arena.database(copy_of=billed) as sealed,
            _done(bench, "seal", sealed) as sealing,
            arena.database(copy_of=sealed) as archived,
            _done(bench, "archive", archived) as archiving,
            _day_sealed(bench, archived),
            arena.database(copy_of=archived) as pruned,
            _done(bench, "prune", pruned) as pruning,
        ):
            places = {"seal": billed, "archive": sealed, "prune": archived}
            yield bench, places, {"seal": sealing, "archive": archiving, "prune": pruning}


def _bill(place: Place, directory: Path) -> _Bench:
    with told_story(place.database_url, place.job_url) as story:
        sealing = Sealing(story, directory, place.database_url)
        (directory / "key").write_text(format_signer_key(sealing.keys[0]) + "\n")
        node = story.add_node("jp-1")
        streams = [node.add_stream(story.add_user().uuid, tag) for tag in ("a", "b")]
        story.minute()
        story.collect()
        for _ in range(2):
            story.minute(*((stream, 10, 20) for stream in streams))
            story.collect()
        sealing.seal()
        shutil.copy(sealing.file, directory / "earlier")
        story.now = SHORTLY_BEFORE
        for _ in range(6):
            story.minute(*((stream, 10, 20) for stream in streams))
        story.collect()
        return _Bench(directory, story.environment(), story.context(), sealing.keys)


@contextmanager
def _done(bench: _Bench, job: str, place: Place) -> Iterator[tuple[Mapping[Side, int], float]]:
    """Let a job do its work; give the block what its line carried, and how long it took."""
    code, messages, seconds = bench.run(job, place, Strike(signal.SIGKILL))
    if code != EXIT_OK:
        raise AssertionError(f"undisturbed, {job} ends with {code}")
    yield messages, seconds


@contextmanager
def _day_sealed(bench: _Bench, place: Place) -> Iterator[None]:
    """Give the block a place whose day of booking is sealed, which `prune` waits for."""
    tomorrow = datetime.now(UTC) + DAY
    context = replace(
        bench.context,
        run_id=str(uuid.uuid4()),
        clock=lambda: tomorrow,
        database=Database(place.database_url),
    )
    seal(context, bench.keys)
    yield


@contextmanager
def _copied(bench: _Bench, job: str) -> Iterator[_Bench]:
    """Give the block files of its own, as they were before the job."""
    with tempfile.TemporaryDirectory() as name:
        for file in ("key", "key.pub"):
            shutil.copy(bench.directory / file, name)
        kept = "earlier" if job == "seal" else "checkpoints"
        shutil.copy(bench.directory / kept, Path(name) / "checkpoints")
        yield replace(bench, directory=Path(name))


def _strike(rng: random.Random, messages: Mapping[Side, int], seconds: float) -> Strike:
    if rng.random() < 0.3:
        return Strike(signal.SIGKILL, after_seconds=rng.uniform(0, seconds))
    side: Side = rng.choice(["client", "server"])
    severance: Severance = rng.choice(["withheld", None])
    return Strike(signal.SIGKILL, (side, rng.randrange(messages[side])), severance)


def _judge(job: str, bench: _Bench, place: Place, verdict: Verdict) -> None:
    """Look at what a kill has left; run the job once more, and look at the end."""
    _verify(bench, place, verdict)
    code, *_ = bench.run(job, place, Strike(signal.SIGKILL))
    if code != EXIT_OK:
        verdict.problems.append(f"after the kill it ends with {code}")
    _verify(bench, place, verdict)
    facts = {"seal": 0, "archive": count(place, READ_ARCHIVED), "prune": count(place, READ_PRUNED)}
    if job != "seal" and facts[job] != FACTS_OF_MONTH:
        verdict.problems.append(f"{facts[job]} facts instead of {FACTS_OF_MONTH}")
    if job == "seal" and count(place, READ_WAITING):
        verdict.problems.append("seals wait after `seal`")
    if job == "archive" and {path.name for path in bench.archive.parent.iterdir()} != {
        ".lock",
        MONTH,
    }:
        verdict.problems.append("other files are left beside the archive")


def _verify(bench: _Bench, place: Place, verdict: Verdict) -> None:
    context = replace(bench.context, database=Database(place.job_url))
    key_file = bench.directory / "key.pub"
    report = verify(context, checkpoint_files=[bench.checkpoints], key_files=[key_file])
    verdict.problems += [finding.detail for finding in unexplained(report)]
    if bench.archive.exists():
        verdict.problems += check_archive(bench.archive, read_public_keys([key_file])).problems
