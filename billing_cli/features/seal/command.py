"""`billing seal`."""

from __future__ import annotations

import os
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import click

from billing_cli.cli.options import json_option
from billing_cli.cli.running import run_job
from billing_cli.errors import UsageError

if TYPE_CHECKING:
    from billing_cli.cli.root import Options
    from billing_cli.features.seal.result import SealResult
    from billing_cli.jobs.context import JobContext


@click.group("seal", invoke_without_command=True)
@click.option(
    "--key-ref",
    metavar="REF",
    help="The private key: file:FILE, or credential:NAME under $CREDENTIALS_DIRECTORY.",
)
@click.option(
    "--to",
    "file_path",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Append the newest checkpoint to this file.",
)
@json_option
@click.pass_context
def command(
    context: click.Context, key_ref: str | None, file_path: Path | None, as_json: bool
) -> None:
    """Append the seals of committed runs to the log, and sign its head.

    Prints the newest checkpoint. Whoever keeps checkpoints elsewhere can prove with
    `billing verify` that nothing which they cover was changed since. The first run after a UTC day
    appends what each account had booked that day. Nothing is signed that does not continue the
    newest checkpoint in FILE. Another key may follow: make it with the same --name, and keep both
    public keys.

    Needs a role and a user of its own: `billing migrate --grant-seal-to ROLE`.

    \b
    Examples:
      billing seal keygen --out /etc/billing/seal.key
      billing seal --key-ref file:/etc/billing/seal.key --to /var/lib/billing-seal/checkpoints
      billing seal --key-ref credential:seal.key --json
    """
    if subcommand := context.invoked_subcommand:
        if key_ref or file_path or as_json:
            raise UsageError(f"write the options of `billing seal {subcommand}` after its name")
        return
    if key_ref is None:
        raise UsageError("name the private key by --key-ref; `billing seal keygen` makes one")
    _seal(context.find_object(object), key_ref, file_path, as_json)  # type: ignore[arg-type]


def _seal(options: Options, key_ref: str, file_path: Path | None, as_json: bool) -> None:
    from billing_cli.config.settings import credentials_environ  # noqa: PLC0415
    from billing_cli.features.seal.file import open_checkpoints  # noqa: PLC0415
    from billing_cli.features.seal.job import JOB, seal  # noqa: PLC0415
    from billing_cli.features.seal.result import seal_parts  # noqa: PLC0415
    from billing_cli.signatures import read_signer_key  # noqa: PLC0415

    def work(context: JobContext) -> SealResult:
        keys = read_signer_key(key_ref, credentials_environ(options.config_path, os.environ))
        with open_checkpoints(file_path) if file_path else nullcontext() as file:
            result = seal(context, keys, kept=file.newest if file else None)
            if file:
                file.append(result.checkpoint)
        return result

    run_job(options, JOB, as_json, work, text_of=seal_parts, files_checked=False)


@command.command("keygen")
@click.option(
    "--out",
    "path",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    metavar="FILE",
    help="Where the private key goes; FILE.pub gets the public one.",
)
@click.option(
    "--name",
    default="billing/log",
    show_default=True,
    metavar="NAME",
    help="The name of the log, such as example.com/billing: no spaces, no plus signs.",
)
@json_option
def keygen(path: Path, name: str, as_json: bool) -> None:
    """Make a key pair: Ed25519, as signed notes use it.

    FILE is readable by its owner alone. Give FILE.pub to everybody who verifies. Files are never
    overwritten.

    \b
    Examples:
      billing seal keygen --out /etc/billing/seal.key --name example.com/billing
    """
    import json  # noqa: PLC0415

    from billing_cli.core.notes import format_verifier_key  # noqa: PLC0415
    from billing_cli.signatures import write_key_pair  # noqa: PLC0415

    try:
        public_path, key = write_key_pair(path, name)
    except ValueError as error:
        raise UsageError(f"--name: {error}") from None
    public_key = format_verifier_key(key)
    if as_json:
        done = {
            "job": "seal-keygen",
            "status": "ok",
            "error": None,
            "private_key_file": str(path),
            "public_key_file": str(public_path),
            "public_key": public_key,
        }
        click.echo(json.dumps(done))
    else:
        click.echo(f"{path} signs, {public_path} verifies: {public_key}")
