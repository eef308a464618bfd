"""What is installed is pinned, has hashes, and is what pyproject.toml asks for."""

from __future__ import annotations

import re
import tomllib
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
EXTRAS = PROJECT["project"]["optional-dependencies"]
RUNTIME = PROJECT["project"]["dependencies"]
LOCKS = {
    "requirements.lock": RUNTIME,
    "requirements-archive.lock": [*RUNTIME, *EXTRAS["archive"]],
    "requirements-dev.lock": [
        *RUNTIME,
        *(requirement for extra in EXTRAS.values() for requirement in extra),
        *PROJECT["build-system"]["requires"],
    ],
}
ENTRY = re.compile(r"^(\S+==[^\n]+?)((?: \\\n    --hash=sha256:[0-9a-f]{64})+)$", re.MULTILINE)


class Entry(NamedTuple):
    """A version of a lock, for the machines that its marker names."""

    requirement: Requirement
    hashes: int

    @property
    def version(self) -> str:
        """Return the version."""
        (specifier,) = self.requirement.specifier
        return specifier.version


def locked(name: str) -> dict[str, list[Entry]]:
    """Return the entries of a lock by the name of the package."""
    entries: dict[str, list[Entry]] = {}
    for line, hashes in ENTRY.findall((ROOT / name).read_text("utf-8")):
        requirement = Requirement(line)
        entry = Entry(requirement, hashes.count("--hash="))
        entries.setdefault(canonicalize_name(requirement.name), []).append(entry)
    return entries


def needed(requirements: list[str]) -> set[str]:
    """Return the names of all packages that requirements lead to on this machine."""
    found: set[str] = set()
    waiting = [Requirement(text) for text in requirements]
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        found.add(name)
        for text in metadata.requires(name) or ():
            further = Requirement(text)
            extras = requirement.extras or {""}
            applies = further.marker is None or any(
                further.marker.evaluate({"extra": extra}) for extra in extras
            )
            if applies and canonicalize_name(further.name) not in found:
                waiting.append(further)
    return found


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_agrees_with_the_project(name: str) -> None:
    """Each dependency is locked at a version that pyproject.toml allows: else `make lock`."""
    entries = locked(name)
    for text in LOCKS[name]:
        requirement = Requirement(text)
        for entry in entries[canonicalize_name(requirement.name)]:
            assert requirement.specifier.contains(entry.version), (text, entry)


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_holds_hashes_and_no_address(name: str) -> None:
    """Nothing is installed unseen, and where from is the machine's affair."""
    text = (ROOT / name).read_text("utf-8")
    pinned = re.findall(r"^[a-z0-9].*==", text, re.MULTILINE)
    assert len(pinned) == len(ENTRY.findall(text)) > 0
    assert "://" not in text
    assert not re.search(r"^-", text, re.MULTILINE)


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-archive.lock"])
def test_an_operator_installs_what_the_program_needs_and_nothing_else(name: str) -> None:
    """No tool for tests is in the lock; what only other systems need bears a marker."""
    here = {
        package
        for package, entries in locked(name).items()
        if any(e.requirement.marker is None or e.requirement.marker.evaluate() for e in entries)
    }
    assert here == needed(LOCKS[name])


def test_tests_run_with_the_versions_that_operators_install() -> None:
    """The locks name the same versions of what they share."""
    tested = locked("requirements-dev.lock")
    for name in ("requirements.lock", "requirements-archive.lock"):
        for package, entries in locked(name).items():
            assert {e.version for e in entries} == {e.version for e in tested[package]}


def test_the_build_backend_is_pinned() -> None:
    """To one version, which the development lock holds with its hashes."""
    entries = locked("requirements-dev.lock")
    for text in PROJECT["build-system"]["requires"]:
        requirement = Requirement(text)
        (entry,) = entries[canonicalize_name(requirement.name)]
        assert str(requirement.specifier) == f"=={entry.version}"


def test_only_what_has_a_hash_is_installed() -> None:
    """By the Makefile, the manual and the image: no sdist that runs code, no loose version."""
    pages = [ROOT / "Makefile", *(ROOT / "docs").glob("*.md"), ROOT / "containers/Containerfile"]
    for page in pages:
        for line in page.read_text("utf-8").replace("\\\n", " ").splitlines():
            if re.search(r"(?<!`)pip install", line):
                safe = "--require-hashes --only-binary :all:" in line or "$(HASHED)" in line
                assert safe or "--no-deps --no-index" in line, (page.name, line)
