"""One mutant against the tests: in a process of its own, so that nothing of it stays."""

from __future__ import annotations

import importlib.abc
import importlib.util
import os
import resource
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NoReturn

import pytest
from hypothesis import Phase, settings

if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import CodeType, ModuleType

Outcome = Literal["killed", "timed out", "survived"]

CORE = Path(__file__).parents[3] / "billing_cli" / "core"
TESTS = Path(__file__).parents[2]

# A mutant has to be found by the tests of its own module, which also keeps a trial short.
MODULES = {
    "deltas": (
        *("test_deltas.py", "test_continuity.py", "test_walk.py", "test_restart.py"),
        *("test_succession.py", "test_histories.py"),
    ),
    "walk": (
        *("test_walk.py", "test_judging.py", "test_uncharged.py", "test_deltas.py"),
        *("test_continuity.py", "test_restart.py", "test_succession.py", "test_histories.py"),
    ),
    "judging": (
        *("test_judging.py", "test_walk.py", "test_deltas.py", "test_continuity.py"),
        *("test_restart.py", "test_succession.py", "test_histories.py"),
    ),
    "history": (
        *("test_judging.py", "test_hidden_restarts.py", "test_corrections.py"),
        "test_restart.py",
    ),
    "uncharged": ("test_uncharged.py", "test_succession.py"),
    "changes": (
        *("test_changes.py", "test_uncharged.py", "test_continuity.py", "test_restart.py"),
        *("test_succession.py", "test_histories.py"),
    ),
    "former_names": ("test_former_names.py", "test_walk.py", "test_succession.py"),
    "succession": (
        "test_succession.py",
        "test_uncharged.py",
        "test_any_totals.py",
        "test_histories.py",
    ),
    "restart": ("test_restart_rule.py", "test_restart.py", "test_histories.py"),
    "stream_states": (
        *("test_stream_states.py", "test_uncharged.py", "test_restart.py"),
        "test_histories.py",
    ),
    "gaps": ("test_gaps.py", "test_continuity.py", "test_restart.py", "test_succession.py"),
    "minutes": ("test_minutes.py", "test_plausibility.py", "test_succession.py"),
    "plausibility": ("test_plausibility.py", "test_credit_state.py"),
    "rating": (
        *("test_rating.py", "test_prices.py", "test_quota_periods.py"),
        "test_rating_properties.py",
    ),
    "bucket_history": ("test_adjustments.py", "test_quota_periods.py"),
    "adjustments": ("test_adjustments.py", "test_returned_quotas.py", "test_quota_periods.py"),
    "daily_maximum": ("test_daily_maximum.py",),
    "quota_periods": ("test_quota_periods.py",),
    "balances": (
        *("test_balances.py", "test_balances_choices.py", "test_lives.py"),
        "test_balances_properties.py",
    ),
    "funds": ("test_balances.py", "test_balances_properties.py", "test_lives.py"),
    "lives": ("test_lives.py",),
    "corrections": (
        *("test_charged_again.py", "test_corrections.py", "test_known_history.py"),
        "test_hidden_restarts.py",
    ),
    "takeover": ("test_takeover.py",),
    "canonical": ("test_canonical.py", "test_sealing_page.py"),
    "merkle": ("test_merkle.py", "test_sealing_page.py", "test_statement_size.py"),
    "seals": ("test_sealing_page.py", "test_seals.py"),
    "statements": ("test_statements.py", "test_statement_size.py"),
    "statement_shape": ("test_statements.py",),
    "times": ("test_times.py",),
    "peak": ("test_peak.py", "../config/test_peak.py"),
}

# Of CPU time, so that a busy machine kills nothing. The tests of a module as it is may take long;
# a mutant gets a few times what they took.
LONGEST_SECONDS = 600
LEAST_SECONDS = 5
MEMORY_BYTES = 4 * 2**30

OPTIONS = (
    *("-x", "-q", "--noconftest", "-p", "no:cacheprovider"),
    # Nobody reads why a test failed, so what prepares that is left out.
    *("--assert=plain", "--tb=no", "-p", "no:unraisableexception"),
)


class Bench:
    """Where the mutants of one module are tried out."""

    def __init__(self, module: str, *, is_quick: bool) -> None:
        path = CORE / f"{module}.py"
        self.source = path.read_text("utf-8")
        self.name = f"billing_cli.core.{module}"
        self.tests = [str(TESTS / "unit" / "core" / one) for one in MODULES[module]]
        self.is_quick = is_quick
        self.cpu_seconds = LONGEST_SECONDS
        seconds_before = _cpu_seconds_of_children()
        if self.try_out(compile(self.source, str(path), "exec", dont_inherit=True)) != "survived":
            raise SystemExit(f"the tests of {module} fail as it is: {' '.join(self.tests)}")
        taken_seconds = _cpu_seconds_of_children() - seconds_before
        self.cpu_seconds = LEAST_SECONDS + 3 * int(taken_seconds)

    def try_out(self, code: CodeType) -> Outcome:
        """Run the tests with the code in place of the module, up to the first that fails.

        Tests that make up examples come last, or not at all where it has to be quick, and make up
        the same ones each time.
        """
        return in_its_place(
            self.name, code, self.tests, is_quick=self.is_quick, cpu_seconds=self.cpu_seconds
        )


def in_its_place(
    module: str, code: CodeType, tests: Sequence[str], *, is_quick: bool, cpu_seconds: int
) -> Outcome:
    """Run tests with some code in place of a module, in a process with a limit of its own."""
    child = os.fork()
    if child == 0:
        resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds + 1))
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
        _become(module, code, tests, is_quick=is_quick)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGXCPU:
        return "timed out"
    return "survived" if os.waitstatus_to_exitcode(status) == pytest.ExitCode.OK else "killed"


def _become(module: str, code: CodeType, tests: Sequence[str], *, is_quick: bool) -> NoReturn:
    exit_code = int(pytest.ExitCode.INTERNAL_ERROR)
    try:
        os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
        silence = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silence, 1)
        os.dup2(silence, 2)
        sys.meta_path.insert(0, _Finder(module, code))
        phases = (Phase.explicit, Phase.generate)
        settings.register_profile("mutants", derandomize=True, database=None, phases=phases)
        settings.load_profile("mutants")
        exit_code = int(pytest.main([*OPTIONS, *tests], plugins=[_Order(is_quick=is_quick)]))
    finally:
        os._exit(exit_code)


def _cpu_seconds_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds one module, made of the code."""

    def __init__(self, module: str, code: CodeType) -> None:
        self.module = module
        self.code = code

    def find_spec(self, fullname: str, *_: object) -> ModuleSpec | None:
        is_it = fullname == self.module
        return importlib.util.spec_from_loader(fullname, self) if is_it else None

    def exec_module(self, module: ModuleType) -> None:
        exec(self.code, module.__dict__)  # noqa: S102 - it is the mutant


class _Order:
    """Puts the tests that make up examples behind the others, or leaves them out."""

    def __init__(self, *, is_quick: bool) -> None:
        self.is_quick = is_quick

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        made_up = [item for item in items if hasattr(getattr(item, "obj", None), "hypothesis")]
        plain = [item for item in items if item not in made_up]
        items[:] = plain if self.is_quick else [*plain, *made_up]
