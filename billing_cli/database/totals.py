"""What all runs of a job did together, and with each source: one small row each."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from billing_cli.core.totals import JobTotals

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from psycopg import Connection

# Adds what the run's row in the run history is about to say, minus what it says so far: a run of
# several steps writes that row at each of them. So the totals are the sum of the run history,
# whatever is tried again, and stay it when old rows of the run history are deleted. What a run says
# never shrinks, but for bytes and money, where a correction may give back: that is counted by
# itself. A run that fails after successful steps is no success: the last one before it counts.
ADD_TO_TOTALS = """
INSERT INTO billing.totals AS own
       (job, last_status, last_started_at, last_finished_at, last_success_at,
        runs, failed_runs, samples, written_minutes, replayed_minutes,
        included_bytes, returned_included_bytes, charged_bytes, returned_charged_bytes,
        charged_amount, returned_amount, corrections,
        resets, gaps, rejected_samples, held_deltas, violations, notices)
SELECT %(job)s, %(status)s, %(started_at)s, %(finished_at)s,
       CASE WHEN %(status)s IN ('ok', 'partial') THEN %(finished_at)s::timestamptz END,
       sum(sign), coalesce(sum(sign) FILTER (WHERE report.status = 'error'), 0),
       sum(sign * processed_samples), sum(sign * written_minutes), sum(sign * replayed_minutes),
       greatest(sum(sign * included_bytes), 0), greatest(-sum(sign * included_bytes), 0),
       greatest(sum(sign * charged_bytes), 0), greatest(-sum(sign * charged_bytes), 0),
       greatest(sum(sign * amount), 0), greatest(-sum(sign * amount), 0),
       sum(sign * corrections),
       sum(sign * coalesce(source.resets, 0)), sum(sign * coalesce(source.gaps, 0)),
       sum(sign * coalesce(source.rejected_samples, 0)),
       sum(sign * coalesce(source.held_deltas, 0)),
       sum(violations) FILTER (WHERE sign > 0), sum(notices) FILTER (WHERE sign > 0)
  FROM (SELECT 1, %(status)s, %(result)s::jsonb
         UNION ALL
        SELECT -1, status, result FROM billing.runs WHERE run_id = %(run_id)s)
    AS report (sign, status, result),
       jsonb_to_record(report.result)
    AS run (processed_samples bigint, written_minutes bigint, replayed_minutes bigint,
            included_bytes numeric, charged_bytes numeric, amount numeric, corrections bigint,
            violations bigint, notices bigint),
       LATERAL (SELECT sum(resets) AS resets, sum(gaps) AS gaps,
                       sum(rejected_samples) AS rejected_samples, sum(held_deltas) AS held_deltas
                  FROM jsonb_to_recordset(report.result -> 'sources')
                    AS listed (resets bigint, gaps bigint, rejected_samples bigint,
                               held_deltas bigint)) AS source
    ON CONFLICT (job) DO UPDATE
   SET last_status = excluded.last_status,
       last_started_at = excluded.last_started_at,
       last_finished_at = excluded.last_finished_at,
       last_success_at = CASE
         WHEN excluded.last_success_at IS NOT NULL THEN excluded.last_success_at
         WHEN own.last_success_at < excluded.last_started_at THEN own.last_success_at
         ELSE (SELECT max(finished_at) FROM billing.runs
                WHERE job = excluded.job AND run_id <> %(run_id)s AND status IN ('ok', 'partial'))
       END,
       runs = own.runs + excluded.runs,
       failed_runs = own.failed_runs + excluded.failed_runs,
       samples = own.samples + excluded.samples,
       written_minutes = own.written_minutes + excluded.written_minutes,
       replayed_minutes = own.replayed_minutes + excluded.replayed_minutes,
       included_bytes = own.included_bytes + excluded.included_bytes,
       returned_included_bytes = own.returned_included_bytes + excluded.returned_included_bytes,
       charged_bytes = own.charged_bytes + excluded.charged_bytes,
       returned_charged_bytes = own.returned_charged_bytes + excluded.returned_charged_bytes,
       charged_amount = own.charged_amount + excluded.charged_amount,
       returned_amount = own.returned_amount + excluded.returned_amount,
       corrections = own.corrections + excluded.corrections,
       resets = own.resets + excluded.resets,
       gaps = own.gaps + excluded.gaps,
       rejected_samples = own.rejected_samples + excluded.rejected_samples,
       held_deltas = own.held_deltas + excluded.held_deltas,
       violations = coalesce(excluded.violations, own.violations),
       notices = coalesce(excluded.notices, own.notices)
"""

# The same by source, of what grows: bytes and money that are given back are not counted here.
ADD_TO_SOURCE_TOTALS = """
INSERT INTO billing.source_totals AS own
       (source_id, charged_bytes, charged_amount, new_streams, successions)
SELECT listed.source_id,
       greatest(sum(sign * coalesce(charged_bytes, 0)), 0),
       greatest(sum(sign * coalesce(amount, 0)), 0),
       greatest(sum(sign * coalesce(new_streams, 0)), 0),
       greatest(sum(sign * coalesce(successions, 0)), 0)
  FROM (SELECT 1, %(result)s::jsonb
         UNION ALL
        SELECT -1, result FROM billing.runs WHERE run_id = %(run_id)s) AS report (sign, result)
 CROSS JOIN jsonb_to_recordset(report.result -> 'sources')
    AS listed (source_id text, charged_bytes numeric, amount numeric, new_streams bigint,
               successions bigint)
 WHERE listed.source_id IS NOT NULL
 GROUP BY listed.source_id
HAVING sum(sign * (coalesce(charged_bytes, 0) + coalesce(new_streams, 0)
                   + coalesce(successions, 0))) > 0
 ORDER BY listed.source_id
    ON CONFLICT (source_id) DO UPDATE
   SET charged_bytes = own.charged_bytes + excluded.charged_bytes,
       charged_amount = own.charged_amount + excluded.charged_amount,
       new_streams = own.new_streams + excluded.new_streams,
       successions = own.successions + excluded.successions
"""

READ_TOTALS = """
SELECT job, last_status, last_started_at, last_finished_at, last_success_at,
       runs, failed_runs, samples, written_minutes, replayed_minutes,
       included_bytes, returned_included_bytes, charged_bytes, returned_charged_bytes,
       charged_amount, returned_amount, corrections,
       resets, gaps, rejected_samples, held_deltas, violations, notices
  FROM billing.totals
 ORDER BY job
"""


# An audit of everything has proven what is new, too.
READ_CLEAN_AUDITS = """
SELECT scope, max(at)
  FROM billing.audits
 CROSS JOIN LATERAL unnest(CASE WHEN is_full THEN ARRAY['full', 'new'] ELSE ARRAY['new'] END)
    AS audited (scope)
 WHERE violations = 0
 GROUP BY scope
 ORDER BY scope
"""


def read_clean_audits(connection: Connection) -> list[tuple[str, datetime]]:
    """Return when the last clean audits began, by what they proved: `full` and `new`."""
    return [(scope, at) for scope, at in connection.execute(READ_CLEAN_AUDITS)]


def add_to_totals(
    connection: Connection,
    *,
    run_id: str,
    job: str,
    status: str,
    started_at: datetime,
    finished_at: datetime,
    result: Mapping[str, Any],
) -> None:
    """Count a run, before its row in the run history is written or brought up to date.

    Jobs of one kind wait here for each other, so it comes right before the commit.
    """
    parameters = {
        "run_id": run_id,
        "job": job,
        "status": status,
        "started_at": started_at,
        "finished_at": finished_at,
        "result": json.dumps(result),
    }
    connection.execute(ADD_TO_SOURCE_TOTALS, parameters)
    connection.execute(ADD_TO_TOTALS, parameters)


def read_totals(connection: Connection) -> list[JobTotals]:
    """Return the totals of every job that ever ran, by its name."""
    return [JobTotals(*row) for row in connection.execute(READ_TOTALS)]
