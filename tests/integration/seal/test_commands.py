"""`billing seal`, `seal keygen` and `verify` as commands: files, output and exit codes."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

from billing_cli.core.notes import parse_checkpoint, parse_signer_key, parse_verifier_key
from tests.integration.seal.test_seal import grow
from tests.support.sealing import tamper

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from tests.support.sealing import Sealing
    from tests.support.story import Story


def test_a_key_pair_is_written_once(story: Story, tmp_path: Path) -> None:
    """The private key for its owner alone; neither file is ever overwritten."""
    key = tmp_path / "seal.key"
    made = story.billing("seal", "keygen", "--out", str(key), "--name", "example.com/x", "--json")
    assert made.exit_code == 0, made.stderr
    public = tmp_path / "seal.key.pub"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert parse_verifier_key(public.read_text()).name == "example.com/x"
    assert made.json["public_key"] == public.read_text().strip()
    signer = parse_signer_key(key.read_text())
    assert signer.seed.hex() not in made.stdout
    again = story.billing("seal", "keygen", "--out", str(key))
    assert (again.exit_code, "never overwritten" in again.stderr) == (78, True)
    key.unlink()
    assert story.billing("seal", "keygen", "--out", str(key)).exit_code == 78
    assert not key.exists()
    assert story.billing("seal", "keygen", "--out", str(key), "--name", "a b").exit_code == 2


def test_seal_prints_the_newest_checkpoint_and_verify_proves_it(
    story: Story, sealing: Sealing, tmp_path: Path
) -> None:
    """Each by a role and with a key of its own; a change exits with 3 and names run and account."""
    grow(story)
    key, kept = tmp_path / "seal.key", tmp_path / "kept"
    story.billing("seal", "keygen", "--out", str(key))
    seal = ("seal", "--key-ref", "credential:seal.key", "--to", str(kept))
    credentials = {"CREDENTIALS_DIRECTORY": str(tmp_path), "DATABASE_URL": sealing.seal_url}
    done = story.billing(*seal, **credentials)
    assert (done.exit_code, done.stdout) == (0, kept.read_text()), done.stderr
    assert parse_checkpoint(done.stdout).checkpoint.size == 3
    # Or from the directory `credentials` next to the configuration file.
    (tmp_path / "billing.toml").touch()
    (tmp_path / "credentials").mkdir()
    (tmp_path / "credentials/seal.key").write_bytes(key.read_bytes())
    credentials["CREDENTIALS_DIRECTORY"] = ""
    credentials["BILLING_CONFIG"] = str(tmp_path / "billing.toml")
    again = story.billing(*seal, "--json", **credentials)
    assert (again.json["appended_seals"], again.json["checkpoint"]) == (0, done.stdout)

    verify = ("verify", "--checkpoint", str(kept), "--public-key", f"{key}.pub", "--json")
    clean = story.billing(*verify)
    assert (clean.exit_code, clean.json["findings"], clean.json["seals"]) == (0, [], 3)
    row = story.rows("SELECT run_id::text, account_uuid::text FROM billing.charges LIMIT 1")[0]
    change = "UPDATE billing.charges SET amount_delta = {} - 1 WHERE account_uuid = '{}'"
    tamper(story.database_url, change.format("amount_delta", row[1]))
    found = story.billing(*verify)
    assert found.exit_code == 3
    assert {(one["kind"], one["table"]) for one in found.json["findings"]} == {
        ("changed", "billing.charges")
    }
    assert {one["account_uuid"] for one in found.json["findings"]} == {row[1]}
    assert row[0] in {one["run_id"] for one in found.json["findings"]}
    assert "changed: billing.charges run" in story.billing("verify").stdout
    tamper(story.database_url, change.replace("- 1", "+ 1").format("amount_delta", row[1]))


def test_files_that_can_not_be_used_exit_with_78(
    story: Story, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything is read or signed."""
    wrong = tmp_path / "wrong"
    wrong.write_text("nothing of the kind\n")
    # Root may read everything.
    monkeypatch.setattr("os.access", lambda *_: False)
    for arguments in (
        ("verify", "--checkpoint", str(wrong)),
        ("verify", "--public-key", str(wrong)),
        ("verify", "--statement", str(wrong)),
        ("verify", "--statement", str(tmp_path)),
        ("verify", "--public-key", str(tmp_path / "missing")),
        ("seal", "--key-ref", f"file:{wrong}"),
        ("seal", "--key-ref", "credential:missing"),
        ("seal", "--key-ref", "env:HOME"),
    ):
        done = story.billing(*arguments, "--json")
        assert (done.exit_code, done.json["error"]["code"]) == (78, "configuration"), arguments
    assert story.billing("seal").exit_code == 2


def test_verify_since_reads_what_was_written_since(story: Story, sealing: Sealing) -> None:
    """Facts of the minutes that later runs wrote, and the log as a whole."""
    grow(story)
    sealing.seal()
    every = sealing.verify()
    (last,) = story.rows("SELECT max(created_at) FROM billing.seals")[0]
    part = sealing.verify(since=last)
    assert (part.findings, part.leaves, part.records) == ([], every.leaves, 2)
    assert every.records == 6
    assert sealing.verify(since=last.replace(year=2100)).records == 0
