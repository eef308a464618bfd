"""The `billing` command and its options, which every subcommand shares."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module

import click

from billing_cli import __version__

# The help page needs only these lines, so that no subcommand's imports slow it down.
SUMMARIES = {
    "collect": "Move each source one bounded step forward.",
    "catch-up": "Repeat bounded steps until each source is current.",
    "reconcile": "Compare the books with history again, append corrections.",
    "rerate": "Bring the charges of a range to today's prices.",
    "repair": "Correct balances in which charges were lost.",
    "suspend": "Suspend accounts in arrears, release settled ones.",
    "held": "List, release or reject deltas that no line can carry.",
    "sources": "Carry on what belongs to a source under another name.",
    "streams": "Show counters: whose they are, where they stand.",
    "audit": "Prove from the database that nothing was skipped or counted twice.",
    "seal": "Append the seals of runs to the log, and sign its head.",
    "verify": "Prove that nothing was changed since a checkpoint that somebody kept.",
    "statement": "Show what an account was charged in a month, verifiably.",
    "explain": "Tell the story of an account's charges.",
    "archive": "Write a month of facts as Parquet files that prove themselves.",
    "prune": "Take whole months of old evidence away.",
    "migrate": "Bring the database schema to this version.",
    "status": "Show sources, watermarks, gaps and the last runs.",
    "check": "Look at everything before the timer is enabled.",
}


@dataclass(frozen=True, slots=True)
class Options:
    """What was given before the subcommand."""

    config_path: str | None
    log_level: str | None
    log_format: str | None


class LazyGroup(click.Group):
    """A group that imports a subcommand's module only when that subcommand is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Return the subcommands in the order of a run's life."""
        return list(SUMMARIES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import and return a subcommand."""
        if cmd_name not in SUMMARIES:
            return None
        module = import_module(f"billing_cli.features.{cmd_name.replace('-', '_')}.command")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """List the subcommands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(SUMMARIES.items()))


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done, 1 failed, 2 usage, 3 partial, 69 database or every source "
    "unreachable, 75 another run is at it, 78 configuration or schema, 128+n ended by signal n.",
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
