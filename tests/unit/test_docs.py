"""The operators' pages: short, linked, listed, and true of the commands that they name."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from billing_cli.cli.root import cli
from billing_cli.config.settings import load_settings
from tests.support.pages import BLOCK
from tests.unit.systemd.units import UNITS
from tools.generated import generated

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
OPERATORS = sorted(DOCS.glob("*.md"))
MOST_WORDS, MOST_README_WORDS = 10_000, 600
# The list of errors is compared with the code; the other page is for whoever reviews the security.
NOT_COUNTED = {"errors.md", "security.md"}
WRAPPER = ROOT / "share" / "billing" / "billing"
WRITTEN_BY_A_RUN = {ROOT / "docs" / "reference" / "json.md"}

BLOCKS = [
    (page.name, block)
    for page in (*OPERATORS, ROOT / "README.md")
    for block in re.findall(r"^```sh\n(.*?)^```", page.read_text("utf-8"), re.MULTILINE | re.DOTALL)
]
# A command, up to where the shell takes over again.
COMMAND = re.compile(
    r"(?:^|\" |/opt/billing/bin/)billing ((?!\"\$@)(?:[^'\n|>&;\"]|\"[^\"]*\"|'[^'\n]*')+)",
    re.MULTILINE,
)
COMMANDS = sorted(
    {
        command.strip()
        for _, block in BLOCKS
        for command in COMMAND.findall(block.replace("\\\n", " "))
    }
)


def test_the_operators_pages_are_short() -> None:
    """References are not counted, nor is what draws tables."""
    assert sum(words(page) for page in OPERATORS if page.name not in NOT_COUNTED) <= MOST_WORDS
    assert words(ROOT / "README.md") <= MOST_README_WORDS


def words(page: Path) -> int:
    """Return how many words a page has."""
    return sum(bool(re.search(r"\w", word)) for word in page.read_text("utf-8").split())


def test_what_is_generated_is_as_the_code_has_it() -> None:
    """`python -m tools` writes it anew."""
    stale = [
        str(path.relative_to(ROOT)) for path, text in generated().items() if not is_like(path, text)
    ]
    assert stale == []
    written = {path for path in (ROOT / "share").rglob("*") if path.is_file()} - {WRAPPER}
    written |= set((DOCS / "reference").iterdir()) - WRITTEN_BY_A_RUN
    assert written == set(generated())


def is_like(path: Path, text: str) -> bool:
    """Return whether a file has this content."""
    return path.exists() and path.read_text("utf-8") == text


def test_the_site_lists_each_page_once() -> None:
    """A page that is not in the navigation is found by nobody."""
    listed = re.findall(r": (\S+\.md)$", (ROOT / "mkdocs.yml").read_text("utf-8"), re.MULTILINE)
    assert sorted(listed) == sorted(str(page.relative_to(DOCS)) for page in PAGES)


@pytest.mark.parametrize("page", [*PAGES, ROOT / "README.md"], ids=lambda page: page.name)
def test_links_and_pictures_lead_somewhere(page: Path) -> None:
    """To a file, and to a heading in it."""
    text = page.read_text("utf-8")
    for file, heading in re.findall(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]+))?\)", text):
        target = (page.parent / file).resolve() if file else page
        assert target.exists(), file
        assert not heading or heading in headings(target), (file, heading)


def headings(page: Path) -> set[str]:
    """Return the anchors of a page's headings."""
    return {
        re.sub(r"[^\w -]", "", line.lstrip("# ").lower()).strip().replace(" ", "-")
        for line in page.read_text("utf-8").splitlines()
        if line.startswith("#")
    }


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_pages_exists_with_its_options(command: str) -> None:
    """The options are read before the help is shown, so one that is unknown would be told."""
    shown = CliRunner().invoke(cli, [*shlex.split(command), "--help"])
    assert shown.exit_code == 0, shown.output


def test_commands_that_decide_on_a_source_say_since_when() -> None:
    """They are refused without; --help does not tell."""
    decided = [one for one in COMMANDS if re.match(r"held (release|reject) .*--source", one)]
    assert decided
    assert [one for one in decided if "--since" not in one] == []


@pytest.mark.parametrize("page", [*OPERATORS, WRAPPER], ids=lambda page: page.name)
def test_options_that_a_text_names_exist(page: Path) -> None:
    """As in `status --max-lag`, or `seal keygen --out`. The list of errors has misspelt ones."""
    if page.name == "errors.md":
        return
    text = page.read_text("utf-8")
    for names, option in re.findall(r"(?<![/\w-])([a-z-]+(?: [a-z]+)?) (--[a-z-]+)", text):
        command: click.Command | None = cli
        for name in names.removeprefix("billing ").split():
            if isinstance(command, click.Group):
                command = command.get_command(click.Context(command), name)
        if command is not None and command is not cli:
            known = {one for parameter in command.params for one in parameter.opts} | {"--help"}
            assert option in known, (names, option)


def test_the_pages_prune_as_the_owner_and_sign_with_the_one_key() -> None:
    """The wrapper connects as the role of the jobs, which may delete nothing."""
    text = "".join(page.read_text("utf-8") for page in OPERATORS)
    assert not re.search(r"^billing prune", text, re.MULTILINE)
    keys = re.findall(r"(?:--key-ref file:|keygen --out )(\S+)", text)
    assert set(keys) == {"/etc/billing/credentials/seal.key"}


def test_the_pages_read_secret_files_without_the_sandbox() -> None:
    """Its user may read no archive, no statement and no key: these are for root alone."""
    text = "".join(page.read_text("utf-8") for page in OPERATORS)
    assert not re.search(
        r"^billing .*(--key-ref file:|--archive |--statement )", text, re.MULTILINE
    )


def test_the_page_of_archives_leads_from_the_installation_to_a_pruned_month() -> None:
    """What waits is sealed by the unit, which has role and key; then archive, verify, prune."""
    block = next(text for page, text in BLOCKS if page == "archive.md")
    _install, sealed, archived, verified, pruned = block.splitlines()
    (unit,) = re.findall(r"systemctl start (\S+)$", sealed)
    assert unit in UNITS
    assert archived.startswith("/opt/billing/bin/billing archive ")
    (directory,) = re.findall(r"--to (\S+)", archived)
    assert (
        f" verify --archive {directory} --public-key /etc/billing/credentials/seal.key.pub"
        in verified
    )
    assert "/opt/billing/bin/billing prune " in pruned


def test_the_pages_connect_with_a_password_and_a_named_authority() -> None:
    """Units have no home directory, in which libpq looks for either where the address has none."""
    text = "".join(page.read_text("utf-8") for page in OPERATORS)
    roles = re.findall(r"CREATE ROLE (\w+) LOGIN\b(.*)", text)
    assert {name for name, _ in roles} == {"billing", "billing_seal", "billing_suspend"}
    assert [name for name, options in roles if "PASSWORD '$password'" not in options] == []
    assert re.findall(r"\S*sslmode=verify-full(?!&sslrootcert=/)\S*", text) == []


def test_cron_runs_the_jobs_whose_timers_the_page_enables() -> None:
    """What is never audited is trusted by nobody; what a job complains of is mailed."""
    page = (DOCS / "install.md").read_text("utf-8")
    enabled = page.partition("## The first run")[2].partition("## Without")[0]
    timers = re.findall(r"billing-(\S+)\.timer", "\n".join(BLOCK.findall(enabled)))
    jobs = re.findall(r"/opt/billing/bin/billing (.*?) >/dev/null$", page, re.MULTILINE)
    assert [job.replace(" --", "-") for job in jobs] == timers


def test_the_pages_tell_how_to_use_the_commands() -> None:
    """The pattern above has found them."""
    found = {" ".join(command.split()[:1]) for command in COMMANDS}
    assert {"check", "collect", "status", "audit", "migrate", "init", "usage", "held"} <= found


@pytest.mark.parametrize("block", BLOCKS, ids=[f"{p}: {b.splitlines()[0]}" for p, b in BLOCKS])
def test_a_block_of_the_pages_is_valid_shell(block: tuple[str, str]) -> None:
    """It is meant to be copied."""
    judged = subprocess.run(
        ["/bin/sh", "-n"], input=block[1], capture_output=True, text=True, check=False
    )
    assert (judged.returncode, judged.stderr) == (0, "")


def test_the_sources_of_the_install_page_are_right(tmp_path: Path) -> None:
    """With the credentials that the page tells systemd of."""
    page = (DOCS / "install.md").read_text("utf-8")
    sources = page.split("```toml\n")[1].split("```")[0]
    path = tmp_path / "billing.toml"
    path.write_text(sources, encoding="utf-8")
    for credential, place in re.findall(r"LoadCredential=(\S+):(\S+)", page):
        assert place == f"/etc/billing/credentials/{credential}"
        (tmp_path / credential).write_text("secret", encoding="utf-8")
    settings = load_settings(str(path), {"CREDENTIALS_DIRECTORY": str(tmp_path)})
    assert [source.auth_mode for source in settings.sources] == ["mtls", "bearer"]


def test_the_units_of_the_pages_are_those_that_are_there() -> None:
    """None is named that does not exist."""
    text = "".join(page.read_text("utf-8") for page in OPERATORS)
    named = set(
        re.findall(r"\b((?:on-)?billing-[a-z]+(?:-[a-z]+)*@?)(?:ID)?\.(service|timer)\b", text)
    )
    assert {f"{name}.{kind}" for name, kind in named} == set(UNITS)
