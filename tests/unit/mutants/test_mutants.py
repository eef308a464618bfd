"""Mutation testing itself: what is changed, and how it is told whether a test notices."""

from __future__ import annotations

import subprocess
import sys
from textwrap import dedent
from typing import TYPE_CHECKING

from tests.unit.mutants import page
from tests.unit.mutants.operators import mutants
from tests.unit.mutants.page import Change, argued, row
from tests.unit.mutants.trial import CORE, TESTS

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def changes(source: str) -> list[str]:
    """Return the changes of a source, as they are shown."""
    return [mutant.change for mutant in mutants(dedent(source))]


def test_a_comparison_loses_its_boundary_and_its_sense() -> None:
    """The two mistakes that are made with one."""
    found = changes("def f(a, b):\n    return a < b")
    assert found[2:] == ["return a < b → return a <= b", "return a < b → return a >= b"]


def test_each_operand_of_a_condition_is_left_out() -> None:
    """A condition that is not needed would not be missed."""
    found = changes("while a and b and c:\n    f()")
    assert found[:4] == [
        f"while a and b and c: → while {other}:"
        for other in ("a or b or c", "b and c", "a and c", "a and b")
    ]


def test_what_computes_nothing_stays_as_it_is() -> None:
    """Neither docstrings nor annotations, imports and decorators are behaviour."""
    source = '''
        """A module."""
        from a import b

        if TYPE_CHECKING:
            x = 1

        Kind = Literal["a", "b"]

        @decorated(1)
        class C(Base):
            """A class."""

            one: Literal["x"]

            def f(self, two: "C") -> "D":
                """A function."""
    '''
    assert changes(source) == []
    assert changes("zip(a, strict=True)") == []
    assert changes("def f():\n    while a:\n        b()\n    return None")[-1] == "b() → pass"


def test_equal_changes_of_one_function_are_told_apart() -> None:
    """The list of arguments must name exactly one."""
    found = changes("def f(a):\n    a.b()\n    a.b()")
    assert found == ["a.b() → pass", "a.b() → pass (2)"]


def test_a_change_is_made_and_taken_back() -> None:
    """Each mutant has its own change alone, whatever came before it."""
    results = []
    for mutant in mutants("x = 2 * (3 + 4)"):
        names: dict[str, int] = {}
        exec(mutant.code, names)  # noqa: S102 - it is made of the line above
        results.append(names["x"])
    assert results == [2 // 7, 3 * 7, 1 * 7, 2 * -1, 2 * 8, 2 * 6, 2 * 8, 2 * 6]


def test_the_page_argues_about_changes_that_exist_and_are_told_apart() -> None:
    """An argument about code that is gone, or about one of two, is no argument."""
    there = [
        Change(module, mutant.function, mutant.change)
        for module in {change.module for change in argued()}
        for mutant in mutants((CORE / f"{module}.py").read_text("utf-8"))
    ]
    assert len(set(there)) == len(there)
    assert argued() < set(there)
    assert argued()


def test_figures_of_modules_that_a_run_left_out_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All modules take longer than anybody waits, so they are run in several calls."""
    copy = tmp_path / "mutants.md"
    copy.write_text(page.PAGE.read_text("utf-8"), "utf-8")
    monkeypatch.setattr(page, "PAGE", copy)
    before = copy.read_text("utf-8").splitlines()
    page.write({"peak": page.Figures({"killed": 7, "timed out": 2, "survived": 1})})
    after = copy.read_text("utf-8").splitlines()
    (changed,) = set(after) - set(before)
    assert changed.startswith("| `peak.py` | 10 | 7 | 2 | 1 | 20")
    assert len(after) == len(before)


def test_an_argument_needs_a_reason() -> None:
    """The row that a survivor is printed as is not taken for an argument yet."""
    assert not any(row(one).endswith("`` |") for one in argued())


def test_trials_tell_what_is_noticed(tmp_path: Path) -> None:
    """A module as it is survives, a wrong one is killed, and an endless one is stopped."""
    test = tmp_path / "test_totals.py"
    test.write_text(
        "from billing_cli.core.succession import total_of\n"
        "def test_nothing():\n    assert total_of([]) == (0, 0)\n"
    )
    script = f"""
        from tests.unit.mutants.trial import in_its_place
        for body in ("return 0, 0", "return None", "while True: pass", "1 / 0", "raise SystemExit"):
            source = "def total_of(totals):\\n    " + body
            code = compile(source, "<x>", "exec", dont_inherit=True)
            module, tests = "billing_cli.core.succession", [{str(test)!r}]
            print(in_its_place(module, code, tests, is_quick=False, cpu_seconds=1))
    """
    ended = subprocess.run(  # noqa: S603 - our own script
        [sys.executable, "-c", dedent(script)],
        cwd=TESTS.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    assert ended.stdout.splitlines() == ["survived", "killed", "timed out", "killed", "killed"]
