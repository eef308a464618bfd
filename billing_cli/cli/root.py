"""The `billing` command and its options, which every subcommand shares."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module

import click

from billing_cli import __version__

# The help page needs only these lines, so that no subcommand's imports slow it down.
SECTIONS = {
    "Run": {
        "collect": "Move each source one bounded step forward.",
        "catch-up": "Repeat bounded steps until each source is current.",
        "reconcile": "Compare charges with the exporters' history, append corrections.",
        "suspend": "Suspend accounts in arrears, release settled ones.",
    },
    "Look": {
        "status": "Show what needs a look, sources, lag and the last runs.",
        "usage": "Show bytes and money by day, hour, node, inbound tag or account.",
        "explain": "Show what an account was charged for, and how it was calculated.",
        "statement": "Show what an account was charged in a month, verifiably.",
        "simulate": "Show what a range would have cost under other prices.",
        "streams": "Show counters: their accounts, where they stand.",
    },
    "Correct": {
        "held": "List, release or reject usage that is held for a decision.",
        "rerate": "Re-rate the charges of a range at current prices.",
        "reverse": "Give back everything that a source charged in a range.",
        "repair": "Correct balances in which charges were lost.",
    },
    "Prove": {
        "audit": "Prove from the database that nothing was skipped or counted twice.",
        "seal": "Append the seals of runs to the log, and sign its head.",
        "verify": "Prove that nothing was changed since a checkpoint that somebody kept.",
        "archive": "Write a month of facts as Parquet files that prove themselves.",
        "prune": "Remove whole months of old usage records and charges.",
    },
    "Set up": {
        "init": "Write a configuration, by questions or by options.",
        "config": "Show the values that count, or the schema of the file.",
        "migrate": "Bring the database schema to this version.",
        "check": "Check configuration, database and sources before the timer is enabled.",
        "sources": "List sources, continue one under another name, accept new streams.",
    },
}
"""The commands by purpose, each with its line of the help page."""

SUMMARIES = {name: text for section in SECTIONS.values() for name, text in section.items()}


@dataclass(frozen=True, slots=True)
class Options:
    """What was given before the subcommand."""

    config_path: str | None
    log_level: str | None
    log_format: str | None


class LazyGroup(click.Group):
    """A group that imports a subcommand's module only when that subcommand is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Return the subcommands in the order of the help page."""
        return list(SUMMARIES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import and return a subcommand."""
        if cmd_name not in SUMMARIES:
            return None
        module = import_module(f"billing_cli.features.{cmd_name.replace('-', '_')}.command")
        command: click.Command = module.command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the subcommand that is named; a misspelt one is an error with a suggestion."""
        name = args[0]
        if name not in SUMMARIES and not ctx.resilient_parsing and not name.startswith("-"):
            from billing_cli.suggestions import did_you_mean  # noqa: PLC0415

            hint = did_you_mean(name, SUMMARIES)
            ctx.fail(f"No such command {name!r}{hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """List the subcommands by purpose, without importing them."""
        width = max(len(name) for name in SUMMARIES)
        for section, summaries in SECTIONS.items():
            with formatter.section(section):
                formatter.write_dl([(f"{name:{width}}", text) for name, text in summaries.items()])


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done, 1 failed, 2 usage, 3 partial, 69 database or every source "
    "unreachable, 74 committed, but the result could not be written, 75 another run is in "
    "progress, 78 configuration or schema, 128+n ended by signal n.",
)
@click.option(
    "--config",
    "config_path",
    metavar="FILE",
    help="TOML configuration. [default: BILLING_CONFIG, else /etc/billing/billing.toml]",
)
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"], case_sensitive=False),
    help="How much is logged to stderr. [default: info]",
)
@click.option(
    "--log-format",
    type=click.Choice(["console", "json"]),
    help="How it is logged. [default: console on a terminal, else json]",
)
@click.version_option(__version__, prog_name="billing")
@click.pass_context
def cli(
    ctx: click.Context, config_path: str | None, log_level: str | None, log_format: str | None
) -> None:
    """Turn cumulative traffic counters of proxy nodes into usage, ledger and quota.

    Every byte is billed once: not twice after a retry, not zero times after a crash. Each
    command does its work and ends; what it has to remember is in PostgreSQL. Every command has a
    --help with examples; with --json, stdout holds one JSON object and nothing else.

    \b
    To begin:
      billing migrate                  create or update the schema
      billing check                    look at everything, change nothing
      billing collect --dry-run        show what would be written, write nothing
      billing collect                  what the timer runs every minute
      billing status                   where everything stands
    """
    ctx.obj = Options(config_path, log_level, log_format)
