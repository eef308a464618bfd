"""The run history: what each run did, one row for each."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from billing_cli.database.patience import PatientConnection

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from psycopg import Connection

ADD_RUN = """
INSERT INTO billing.runs (run_id, job, status, started_at, finished_at, host, version, error,
                          result)
VALUES (%(run_id)s, %(job)s, %(status)s, %(started_at)s, %(finished_at)s, %(host)s, %(version)s,
        %(error)s, %(result)s::jsonb)
    ON CONFLICT (run_id) DO UPDATE
   SET status = excluded.status, finished_at = excluded.finished_at, error = excluded.error,
       result = excluded.result
"""


# Of a run's transactions, each writes another result.
IS_SAVED = """
SELECT 1 FROM billing.runs WHERE run_id = %(run_id)s AND result = %(result)s::jsonb
"""

READ_RESULT = "SELECT result FROM billing.runs WHERE run_id = %(run_id)s"


def save_run(
    connection: Connection,
    *,
    run_id: str,
    job: str,
    status: str,
    started_at: datetime,
    finished_at: datetime,
    host: str,
    version: str,
    error: str | None,
    result: Mapping[str, Any],
) -> None:
    """Write a run's row in the run history, or bring it up to date.

    It is the evidence of the open transaction, where the answer to its COMMIT is lost.
    """
    row = {
        "run_id": run_id,
        "job": job,
        "status": status,
        "started_at": started_at,
        "finished_at": finished_at,
        "host": host,
        "version": version,
        "error": error,
        "result": json.dumps(result),
    }
    connection.execute(ADD_RUN, row)
    if isinstance(connection, PatientConnection):
        connection.evidence = IS_SAVED, {"run_id": run_id, "result": row["result"]}


def read_result(connection: Connection, run_id: str) -> dict[str, Any]:
    """Return what a run's row in the run history says so far; nothing where there is none yet."""
    row = connection.execute(READ_RESULT, {"run_id": run_id}).fetchone()
    return {} if row is None else row[0]
