"""`billing init`."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from billing_cli.cli.asking import ask, ask_secret, is_attended
from billing_cli.cli.options import json_option
from billing_cli.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from billing_cli.features.init.setup import NewSource

DIRECTORY = "/etc/billing"


@click.command("init")
@click.option(
    "--directory",
    default=DIRECTORY,
    show_default=True,
    metavar="DIR",
    help="Where billing.toml and the directory `credentials` are written.",
)
@click.option(
    "--database-url",
    envvar="DATABASE_URL",
    metavar="URL",
    help="Connection string; better by the variable DATABASE_URL, which other users can't see.",
)
@click.option(
    "--source",
    "urls",
    multiple=True,
    metavar="ID=URL",
    help="An exporter to collect from; may be given several times.",
)
@click.option(
    "--token-file",
    "token_files",
    multiple=True,
    metavar="ID=FILE",
    help="A file with the Bearer token of this source.",
)
@click.option("--price", metavar="DECIMAL", help="Price of a byte beyond the quota.")
@click.option("--price-per-gib", metavar="DECIMAL", help="The same for a GiB (2^30 bytes).")
@click.option("--currency", default="", metavar="LABEL", help="A label for amounts, such as EUR.")
@click.option(
    "--quota",
    type=click.IntRange(min=0),
    default=0,
    metavar="BYTES",
    help="Free bytes of an account without a profile. [default: 0]",
)
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    directory: str,
    database_url: str | None,
    urls: tuple[str, ...],
    token_files: tuple[str, ...],
    price: str | None,
    price_per_gib: str | None,
    currency: str,
    quota: int,
    as_json: bool,
) -> None:
    """Write a commented configuration and its credential files, check them, and say what is next.

    On a terminal it asks for what no option gives. It overwrites nothing. Credential files are
    readable by their owner alone. What `billing check` finds is shown and does not change the exit
    code: before the first `billing migrate` the schema is missing.

    \b
    Examples:
      billing init
      billing init --source jp-1=https://jp-1.example.net:8443 --price-per-gib 0.05 --currency EUR
      billing init --directory ./trial --database-url postgresql:///account \\
        --source jp-1=http://127.0.0.1:8080 --price 0.0000000005
    """
    from billing_cli.features.init.files import write_setup  # noqa: PLC0415
    from billing_cli.features.init.setup import Setup, price_of, sources_of  # noqa: PLC0415

    if price and price_per_gib:
        raise UsageError("--price and --price-per-gib exclude each other")
    answers = _Answers(is_asking=is_attended() and not as_json)
    url = database_url or answers.secret("--database-url", "Connection string of the database")
    sources = sources_of(urls, token_files) or answers.sources()
    per_gib = price_per_gib or (
        None if price else answers.text("--price", "Price of a GiB beyond the included quota")
    )
    setup = Setup(
        url,
        sources,
        price_of(per_gib or price or "", is_per_gib=per_gib is not None),
        quota,
        currency or answers.optional("Currency, a label such as EUR (empty: none)"),
    )
    written = write_setup(setup, Path(directory).absolute())
    _report(ctx, written, as_json)


class _Answers:
    """Asks whoever is at the terminal; elsewhere, names the option that is missing."""

    def __init__(self, *, is_asking: bool) -> None:
        self.is_asking = is_asking

    def text(self, option: str, question: str) -> str:
        self._require(option)
        return ask(question)

    def secret(self, option: str, question: str) -> str:
        self._require(option)
        return ask_secret(question)

    def optional(self, question: str) -> str:
        return ask(question) if self.is_asking else ""

    def sources(self) -> tuple[NewSource, ...]:
        from billing_cli.features.init.setup import NewSource  # noqa: PLC0415

        self._require("--source")
        found: list[NewSource] = []
        while name := ask(
            "Name of a source, such as jp-1" + (" (empty: no more)" if found else "")
        ):
            url = ask("Its address, such as https://jp-1.example.net:8443")
            found.append(NewSource(name, url, ask_secret("Its Bearer token (empty: none)") or None))
        if not found:
            raise UsageError("a configuration needs a source")
        return tuple(found)

    def _require(self, option: str) -> None:
        if not self.is_asking:
            raise UsageError(f"{option} is missing, and there is no terminal to ask at")


def _report(ctx: click.Context, written: Sequence[Path], as_json: bool) -> None:
    path = written[-1]
    found = _checked(ctx, path, as_json)
    following = _next_commands(path)
    if as_json:
        result: dict[str, Any] = {
            "job": "init",
            "status": "ok",
            "error": None,
            "files": [str(file) for file in written],
            "check": json.loads(found),
            "next": following,
        }
        click.echo(json.dumps(result))
        return
    lines = [*(f"wrote {file}" for file in written), "", found.rstrip(), "", "next:"]
    click.echo("\n".join([*lines, *(f"  {line}" for line in following)]))


def _checked(ctx: click.Context, path: Path, as_json: bool) -> str:
    """Return what `billing check` prints about the new configuration."""
    words = ["--config", str(path), "check", *(["--json"] if as_json else [])]
    printed = io.StringIO()
    with redirect_stdout(printed), suppress(SystemExit):
        ctx.find_root().command.main(words, prog_name="billing", standalone_mode=False)
    return printed.getvalue()


def _next_commands(path: Path) -> list[str]:
    is_default = path.parent == Path(DIRECTORY)
    billing = "billing" if is_default else f"billing --config {path}"
    return [f"{billing} migrate", f"{billing} collect --dry-run", f"{billing} collect"]
