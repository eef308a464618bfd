"""What a superuser changes with the triggers off is found, named, and told apart."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import psycopg
import pytest

from billing_cli.core.seals import LineDigest
from billing_cli.database.seals import CHARGES, RECORDS, FactTable, copy_lines
from billing_cli.features.seal.job import seal
from billing_cli.signatures import generate_key
from tests.support.sealing import tamper

if TYPE_CHECKING:
    from tests.integration.verify.conftest import Sealed

# The run whose seal is leaf 1, its first charge, and the like.
RUN = "(SELECT run_id FROM billing.seals WHERE leaf_number = {})"
CHARGE = f"(SELECT min(ledger_id::text)::uuid FROM billing.charges WHERE run_id = {RUN.format(1)})"
ACCOUNT = f"(SELECT account_uuid FROM billing.charges WHERE ledger_id = {CHARGE})"
MINUTE = f"(SELECT bucket_start FROM billing.charges WHERE ledger_id = {CHARGE})"
NEXT = f"({MINUTE} + interval '1 minute')"


class Tampering(NamedTuple):
    """Statements, and findings that they must lead to.

    Of each: kind, table, the leaf of the run if that is named, and whether the account is named.
    """

    statements: tuple[str, ...]
    findings: frozenset[tuple[str, str, int | None, bool]]


def tampering(statements: str, *findings: tuple[str, str, int | None, bool]) -> Tampering:
    """Return a tampering; statements are separated by semicolons."""
    return Tampering(
        tuple(one for one in statements.split(";") if one.strip()), frozenset(findings)
    )


PREPARE = f"""
CREATE TEMPORARY TABLE here AS
SELECT {CHARGE} AS charge, {ACCOUNT} AS account, {MINUTE} AS at, {NEXT} AS next;
"""

BYTE_MOVED = (
    PREPARE
    + """
UPDATE billing.usage_records SET uplink_end = uplink_end + 1
 WHERE account_uuid = (SELECT account FROM here) AND bucket_start = (SELECT at FROM here);
UPDATE billing.usage_records SET uplink_start = uplink_start + 1
 WHERE account_uuid = (SELECT account FROM here) AND bucket_start = (SELECT next FROM here);
UPDATE public.traffic_minute_buckets
   SET uplink_bytes = uplink_bytes + CASE bucket_start WHEN at THEN 1 ELSE -1 END,
       total_bytes = total_bytes + CASE bucket_start WHEN at THEN 1 ELSE -1 END
  FROM here WHERE account_uuid = account AND bucket_start IN (at, next);
UPDATE billing.charges
   SET rated_bytes = rated_bytes + CASE bucket_start WHEN at THEN 1 ELSE -1 END,
       amount_delta = amount_delta - CASE bucket_start WHEN at THEN 0.001 ELSE -0.001 END,
       balance_before = balance_before - CASE bucket_start WHEN at THEN 0 ELSE 0.001 END
  FROM here WHERE account_uuid = account AND bucket_start IN (at, next)
   AND entry_type = 'traffic_charge';
UPDATE public.billing_ledger AS entry
   SET rated_bytes = charge.rated_bytes, amount_delta = charge.amount_delta,
       balance_after = charge.balance_before + charge.amount_delta
  FROM billing.charges AS charge WHERE charge.ledger_id = entry.id
"""
)

RUN_REMOVED = f"""
CREATE TEMPORARY TABLE here AS SELECT {RUN.format(1)} AS run_id;
DELETE FROM public.billing_ledger WHERE id IN
  (SELECT ledger_id FROM billing.charges JOIN here USING (run_id));
DELETE FROM billing.charges WHERE run_id = (SELECT run_id FROM here);
DELETE FROM billing.usage_records WHERE run_id = (SELECT run_id FROM here);
DELETE FROM billing.runs WHERE run_id = (SELECT run_id FROM here);
DELETE FROM billing.seals WHERE run_id = (SELECT run_id FROM here)
"""

TRUNCATED = """
CREATE TEMPORARY TABLE here AS SELECT run_id FROM billing.seals WHERE leaf_number > 5;
DELETE FROM billing.charges WHERE run_id IN (SELECT run_id FROM here);
DELETE FROM billing.usage_records WHERE run_id IN (SELECT run_id FROM here);
DELETE FROM billing.seals WHERE run_id IN (SELECT run_id FROM here);
DELETE FROM billing.tree_nodes WHERE tree = 0 AND ((position + 1) << level) > 6
"""

INSERT_RECORD = """
INSERT INTO billing.usage_records
SELECT bucket_start, stream_id, from_at, 9, reset_epoch, to_at, uplink_start, uplink_end,
       downlink_start, downlink_end, account_uuid, kind, {run_id}, step
  FROM billing.usage_records WHERE run_id = {copied} ORDER BY stream_id LIMIT 1
"""

TAMPERINGS = {
    "leaves of a day said to be at other places": tampering(
        "UPDATE billing.day_leaves SET position = position + 100",
        ("changed", "billing.tree_nodes", None, True),
    ),
    "a byte moved between two minutes, consistently in every table": tampering(
        BYTE_MOVED,
        ("changed", "billing.usage_records", 1, True),
        ("changed", "billing.usage_records", 2, True),
        ("changed", "billing.charges", 1, True),
        ("changed", "billing.charges", 2, True),
    ),
    "a charge deleted with its ledger row and balance": tampering(
        PREPARE
        + """
UPDATE public.account_quota_states SET current_balance = current_balance + 3
 WHERE account_uuid = (SELECT account FROM here);
DELETE FROM public.billing_ledger WHERE id = (SELECT charge FROM here);
DELETE FROM billing.charges WHERE ledger_id = (SELECT charge FROM here)""",
        ("deleted", "billing.charges", 1, True),
    ),
    "a minute of an account deleted everywhere": tampering(
        PREPARE
        + """
DELETE FROM public.billing_ledger WHERE id = (SELECT charge FROM here);
DELETE FROM public.traffic_minute_buckets
 WHERE account_uuid = (SELECT account FROM here) AND bucket_start = (SELECT at FROM here);
DELETE FROM billing.usage_records
 WHERE account_uuid = (SELECT account FROM here) AND bucket_start = (SELECT at FROM here);
DELETE FROM billing.charges WHERE ledger_id = (SELECT charge FROM here)""",
        ("deleted", "billing.charges", 1, False),
        ("deleted", "billing.usage_records", 1, False),
    ),
    "a run removed whole": tampering(RUN_REMOVED, ("deleted", "billing.seals", None, False)),
    "the facts of a run removed": tampering(
        f"DELETE FROM billing.charges WHERE run_id = {RUN.format(1)}",
        ("deleted", "billing.charges", 1, True),
    ),
    "the end truncated, with an older head": tampering(
        TRUNCATED + ";UPDATE billing.log_head SET tree_size = 6, note = {older}",
        ("truncated", "billing.seals", None, False),
    ),
    "the end truncated, with the newest head": tampering(
        TRUNCATED, ("truncated", "billing.seals", None, False)
    ),
    "a run inserted without a seal": tampering(
        INSERT_RECORD.format(run_id="gen_random_uuid()", copied=RUN.format(1)),
        ("inserted", "billing.usage_records", None, True),
    ),
    "a run inserted with a seal and a leaf": tampering(
        """
CREATE TEMPORARY TABLE here AS SELECT * FROM billing.seals WHERE leaf_number = 1;
UPDATE here SET run_id = gen_random_uuid(), leaf_number = 10;
INSERT INTO billing.seals SELECT * FROM here""",
        ("inserted", "billing.seals", None, False),
    ),
    "a record inserted into a run": tampering(
        INSERT_RECORD.format(run_id=RUN.format(1), copied=RUN.format(1)),
        ("inserted", "billing.usage_records", 1, True),
    ),
    "a record inserted into a run, a day after its minutes": tampering(
        INSERT_RECORD.format(run_id=RUN.format(1), copied=RUN.format(1)).replace(
            "SELECT bucket_start,", "SELECT bucket_start + interval '1 day',"
        ),
        ("inserted", "billing.usage_records", 1, True),
    ),
    "a charge moved to another run": tampering(
        f"UPDATE billing.charges SET run_id = {RUN.format(2)} WHERE ledger_id = {CHARGE}",
        ("deleted", "billing.charges", 1, True),
        ("inserted", "billing.charges", 2, True),
    ),
    "a charge moved to an earlier day": tampering(
        f"UPDATE billing.charges SET bucket_start = bucket_start - interval '1 day'"
        f" WHERE ledger_id = {CHARGE}",
        ("changed", "billing.charges", 1, True),
    ),
    "an amount changed": tampering(
        f"UPDATE billing.charges SET amount_delta = 0 WHERE ledger_id = {CHARGE}",
        ("changed", "billing.charges", 1, True),
    ),
    "a price version changed": tampering(
        f"UPDATE billing.charges SET pricing_rule_version = 'v0' WHERE ledger_id = {CHARGE}",
        ("changed", "billing.charges", 1, True),
    ),
    "the reason of a correction changed": tampering(
        "UPDATE billing.charges SET reason = 'other' WHERE adjusts IS NOT NULL",
        ("changed", "billing.charges", 8, True),
    ),
    "the account of a record changed": tampering(
        f"UPDATE billing.usage_records SET account_uuid = gen_random_uuid()"
        f" WHERE run_id = {RUN.format(1)} AND account_uuid = {ACCOUNT}",
        ("changed", "billing.usage_records", 1, True),
    ),
    "facts said to be of an earlier version": tampering(
        f"UPDATE billing.charges SET step = 0 WHERE ledger_id = {CHARGE}",
        ("inserted", "billing.charges", 1, True),
        ("deleted", "billing.charges", 1, True),
    ),
    "a seal removed": tampering(
        "DELETE FROM billing.seals WHERE leaf_number = 1",
        ("deleted", "billing.seals", None, False),
        ("inserted", "billing.charges", 1, True),
    ),
    "the time of a seal changed": tampering(
        "UPDATE billing.seals SET created_at = created_at - interval '1 day' WHERE leaf_number = 1",
        ("changed", "billing.seals", 1, False),
    ),
    "a seal said to be appended a day earlier": tampering(
        """
UPDATE billing.seals SET appended_at = appended_at - interval '1 day'
 WHERE leaf_number = (SELECT max(leaf_number) FROM billing.seals WHERE leaf_number <
                      (SELECT min(leaf_number) FROM billing.sealed_days))""",
        ("changed", "billing.seals", 3, False),
    ),
    "a salt changed": tampering(
        f"UPDATE billing.day_leaves SET salt = sha256('') WHERE account_uuid = {ACCOUNT}",
        ("changed", "billing.day_leaves", None, True),
    ),
    "a leaf of a day removed": tampering(
        f"DELETE FROM billing.day_leaves WHERE account_uuid = {ACCOUNT}",
        ("deleted", "billing.day_leaves", None, True),
    ),
    "the hash of an account's day changed": tampering(
        f"""
UPDATE billing.tree_nodes SET hash = sha256('') WHERE tree > 0 AND level = 0
   AND position = (SELECT position FROM billing.day_leaves WHERE account_uuid = {ACCOUNT})""",
        ("changed", "billing.tree_nodes", None, True),
    ),
    "a day changed": tampering(
        "UPDATE billing.sealed_days SET accounts = accounts + 1",
        ("changed", "billing.sealed_days", None, False),
    ),
    "two leaves swapped": tampering(
        """
UPDATE billing.seals SET leaf_number = -1 WHERE leaf_number = 1;
UPDATE billing.seals SET leaf_number = 1 WHERE leaf_number = 2;
UPDATE billing.seals SET leaf_number = 2 WHERE leaf_number = -1""",
        ("changed", "billing.seals", 1, False),
        ("changed", "billing.seals", 2, False),
    ),
    "a node of the log changed": tampering(
        "UPDATE billing.tree_nodes SET hash = sha256('') WHERE tree = 0 AND level = 1",
        ("changed", "billing.tree_nodes", None, False),
    ),
    "the head removed": tampering(
        "UPDATE billing.log_head SET note = NULL", ("deleted", "billing.log_head", None, False)
    ),
    "the head damaged": tampering(
        "UPDATE billing.log_head SET note = replace(note, E'\\n9\\n', E'\\n8\\n')",
        ("signature", "billing.log_head", None, False),
    ),
}


@pytest.mark.parametrize("name", TAMPERINGS)
def test_tampering_is_found_and_named(sealed: Sealed, name: str) -> None:
    """With what was kept: every checkpoint where the end is at stake, else only earlier ones."""
    kept = sealed.every if "truncated" in name else sealed.earlier
    older = f"'{last_note(sealed)}'"
    statements = [statement.replace("{older}", older) for statement in TAMPERINGS[name].statements]
    with psycopg.connect(sealed.url) as connection:
        query = "SELECT run_id::text, leaf_number FROM billing.seals"
        leaves = dict(connection.execute(query).fetchall())
    assert sealed.verify(kept).findings == []
    tamper(sealed.url, *statements)
    found = {
        (
            finding.kind,
            finding.table,
            leaves.get(finding.run_id or ""),
            finding.account_uuid is not None,
        )
        for finding in sealed.verify(kept).findings
    }
    assert TAMPERINGS[name].findings - found == set(), found


def last_note(sealed: Sealed) -> str:
    """Return the newest of the earlier checkpoints."""
    text = sealed.earlier.read_text()
    return text[text.rindex("example.com/billing\n") :]


def reseal(url: str, leaf_number: int) -> None:
    """Make the hashes of a seal those of its rows as they are now."""
    with psycopg.connect(url) as connection:
        (run_id,) = connection.execute(
            "SELECT run_id FROM billing.seals WHERE leaf_number = %s", (leaf_number,)
        ).fetchone() or (None,)
        digests = [_digest(connection, table, run_id) for table in (RECORDS, CHARGES)]
    values = [
        f"'\\x{value.hex()}'" for digest in digests for value in (digest.sha256, digest.checks)
    ]
    tamper(
        url,
        f"UPDATE billing.seals SET (records_sha256, record_checks, charges_sha256, charge_checks)"
        f" = ({', '.join(values)}) WHERE leaf_number = {leaf_number}",
    )


def _digest(connection: psycopg.Connection, table: FactTable, run_id: object) -> LineDigest:
    digest = LineDigest()
    query = (
        f"SELECT {table.line} FROM {table.name} AS fact WHERE run_id = %(run)s ORDER BY {table.key}"
    )
    for line in copy_lines(connection, query, {"run": run_id}):
        digest.add(line.decode())
    return digest


def rebuild_log(sealed: Sealed, *, new_key: bool) -> None:
    """Change an amount, make its seal match, and build the log anew from the first leaf."""
    tamper(sealed.url, f"UPDATE billing.charges SET amount_delta = 0 WHERE ledger_id = {CHARGE}")
    reseal(sealed.url, 1)
    tamper(
        sealed.url,
        "UPDATE billing.seals SET leaf_number = NULL, appended_at = NULL",
        "DELETE FROM billing.tree_nodes",
        "DELETE FROM billing.day_leaves",
        "DELETE FROM billing.sealed_days",
        "UPDATE billing.log_head SET tree_size = 0, note = NULL",
    )
    seal(sealed.context(), generate_key("example.com/billing") if new_key else sealed.keys)


def test_a_seal_rewritten_with_matching_rows_is_found(sealed: Sealed) -> None:
    """Its leaf is not the one that was hashed."""
    tamper(sealed.url, f"UPDATE billing.charges SET amount_delta = 0 WHERE ledger_id = {CHARGE}")
    reseal(sealed.url, 1)
    found = sealed.verify(sealed.earlier).findings
    assert {(one.kind, one.table) for one in found} == {
        ("changed", "billing.seals"),
        ("changed", "billing.tree_nodes"),  # The day's leaves are not those of these charges.
    }
    assert "leaf 1 is not what the log hashes" in found[0].detail


def test_a_log_rebuilt_with_a_new_key_is_found(sealed: Sealed) -> None:
    """By the key, and by the checkpoint between which and the one before it was changed."""
    rebuild_log(sealed, new_key=True)
    found = sealed.verify(sealed.earlier).findings
    assert {(one.kind, one.table) for one in found} == {
        ("changed", "billing.seals"),
        ("signature", "billing.log_head"),
    }
    assert any("the log was rewritten" in one.detail for one in found)


def test_a_log_rebuilt_with_a_stolen_key_is_found_by_a_kept_checkpoint_alone(
    sealed: Sealed,
) -> None:
    """Without one, nothing is: the database fits together, and the signature is right."""
    rebuild_log(sealed, new_key=False)
    assert sealed.verify().findings == []
    found = sealed.verify(sealed.earlier).findings
    assert [(one.kind, one.table) for one in found] == [("changed", "billing.seals")]


def test_a_truncated_log_is_found_by_a_kept_checkpoint_alone(sealed: Sealed) -> None:
    """Without one, an older head that somebody put back is the head."""
    older = last_note(sealed)
    tamper(
        sealed.url,
        *TRUNCATED.split(";"),
        f"UPDATE billing.log_head SET tree_size = 6, note = '{older}'",
    )
    assert sealed.verify().findings == []
    assert sealed.verify(sealed.earlier).findings == []
    assert [finding.kind for finding in sealed.verify(sealed.every).findings] == ["truncated"]


def test_what_was_not_appended_yet_can_be_replaced(sealed: Sealed) -> None:
    """A run with its seal, before `seal` saw it: that is why it runs every minute."""
    copied = INSERT_RECORD.format(run_id="gen_random_uuid()", copied=RUN.format(1))
    tamper(sealed.url, copied)
    assert [finding.kind for finding in sealed.verify(sealed.every).findings] == ["inserted"]
    tamper(
        sealed.url,
        """
INSERT INTO billing.seals (run_id, step, job, first_bucket, last_bucket, records, records_sha256,
                           charges, charges_sha256)
SELECT run_id, 1, 'collect', bucket_start, bucket_start, 1, sha256(''), 0, sha256('')
  FROM billing.usage_records WHERE revision = 9""",
    )
    with psycopg.connect(sealed.url) as connection:
        row = connection.execute(
            "SELECT run_id FROM billing.seals WHERE leaf_number IS NULL"
        ).fetchone()
        assert row is not None
        records = _digest(connection, RECORDS, row[0]).sha256.hex()
    tamper(
        sealed.url,
        f"UPDATE billing.seals SET records_sha256 = '\\x{records}' WHERE leaf_number IS NULL",
    )
    report = sealed.verify(sealed.every)
    assert (report.findings, report.waiting) == ([], 1)


FORGED_PRUNE = """
INSERT INTO billing.seals (run_id, step, job, created_at, first_bucket, last_bucket, records,
                           records_sha256, charges, charges_sha256)
SELECT gen_random_uuid(), 1, 'prune', now(), {kept_since}, {kept_since}, 0, sha256(''), 0,
       sha256('')
"""


def test_a_prune_that_never_was_hides_nothing(sealed: Sealed) -> None:
    """Neither before it is signed, by whoever is led to do so, nor afterwards."""
    after = "(SELECT max(bucket_start) + interval '1 day' FROM billing.charges)"
    tamper(
        sealed.url,
        f"UPDATE billing.charges SET amount_delta = 0 WHERE ledger_id = {CHARGE}",
        FORGED_PRUNE.format(kept_since=after),
    )
    found = sealed.verify(sealed.every).findings
    assert {(one.kind, one.table) for one in found} == {
        ("deleted", "billing.seals"),
        ("inserted", "billing.usage_records"),
        ("inserted", "billing.charges"),
    }
    seal(sealed.context(), sealed.keys)
    found = sealed.verify(sealed.every).findings
    assert {one.kind for one in found} == {"inserted"}


def test_a_day_that_was_sealed_from_other_charges_is_found(sealed: Sealed) -> None:
    """They were changed while `seal` made the leaves of the day, and put back afterwards."""
    change = "UPDATE billing.charges SET amount_delta = amount_delta {} 1 WHERE run_id ="
    change += " (SELECT run_id FROM billing.seals WHERE job = 'rerate')"
    tamper(sealed.url, change.format("-"))
    seal(sealed.context(), sealed.keys)
    tamper(sealed.url, change.format("+"))
    found = sealed.verify().findings
    assert {(one.kind, one.table) for one in found} == {("changed", "billing.tree_nodes")}
    assert all(one.account_uuid for one in found)


def test_a_day_on_which_nothing_was_booked_is_found(sealed: Sealed) -> None:
    """Whoever leads `seal` to it has a charge that is not there proven by the log."""
    forged = "UPDATE billing.seals SET appended_at = appended_at + interval '7 days' WHERE job ="
    tamper(sealed.url, f"{forged} 'rerate'")
    seal(sealed.context(), sealed.keys)
    tamper(sealed.url, f"{forged.replace('+', '-')} 'rerate'")
    found = sealed.verify().findings
    assert ("inserted", "billing.day_leaves") in {(one.kind, one.table) for one in found}
