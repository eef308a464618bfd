"""`check`: what an operator runs before the timer is enabled. Looks at everything, writes nothing.

What can't be looked at, because something before it is wrong, is left out or says so.
"""

from __future__ import annotations

import functools
import os
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from billing_cli.cli.units import plural
from billing_cli.config.redaction import redact
from billing_cli.database.connection import Session
from billing_cli.database.partitions import read_partition_state
from billing_cli.database.schema import HEAD_REVISION
from billing_cli.database.verification import verify
from billing_cli.errors import BillingError, ConfigurationError, SchemaError
from billing_cli.features.check.configuration_findings import (
    configuration_failure,
    configuration_findings,
    shared_token_finding,
)
from billing_cli.features.check.database_findings import (
    RoleFacts,
    partition_findings,
    replication_findings,
    role_findings,
    server_findings,
)
from billing_cli.features.check.findings import DATABASE_CONNECTION, CheckReport, Finding
from billing_cli.features.check.queries import (
    read_closed_schemas,
    read_known_sources,
    read_replication,
    read_role_facts,
    read_server,
)
from billing_cli.features.check.server_probes import probe_server, version_findings
from billing_cli.features.check.source_findings import (
    Expectations,
    limits_finding,
    rivals_of,
    source_findings,
)
from billing_cli.jobs.assignment import missing_assignment
from billing_cli.jobs.context import select_sources
from billing_cli.jobs.opening import context_of
from billing_cli.jobs.prices import accounts_without_price

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from psycopg import Connection

    from billing_cli.config.settings import Settings
    from billing_cli.config.source import Source
    from billing_cli.features.check.database_findings import ServerFacts
    from billing_cli.features.check.queries import KnownSource
    from billing_cli.jobs.context import JobContext

JOB = "check"


def check(settings: Settings, run_id: str, source_ids: Sequence[str] = ()) -> CheckReport:
    """Return what there is to say about configuration, database and sources, good or bad.

    Raises UsageError for a source that is unknown or disabled.
    """
    findings = list(configuration_findings(settings, os.environ))
    try:
        context = context_of(settings, JOB, run_id)
        sources = select_sources(context, source_ids)
    except ConfigurationError as error:
        findings.append(configuration_failure(str(error)))
        return report_of(findings)
    found, known = _look_at_database(context)
    findings += found
    findings += _look_at_sources(context, sources, known)
    return report_of(findings)


def report_of(findings: Sequence[Finding]) -> CheckReport:
    """Return the findings without whatever is known as a secret, whoever repeated it."""
    return CheckReport(
        datetime.now(UTC),
        tuple(replace(finding, text=redact(finding.text)) for finding in findings),
    )


def _look_at_database(context: JobContext) -> tuple[list[Finding], dict[str, KnownSource]]:
    """Return the findings about the database, and what it knows of the sources."""
    findings: list[Finding] = []
    known: dict[str, KnownSource] = {}

    def greet(connection: Connection) -> tuple[ServerFacts, tuple[str, ...]]:
        return read_server(connection, context.clock), read_closed_schemas(connection)

    def look(connection: Connection) -> tuple[RoleFacts, dict[str, KnownSource]]:
        return read_role_facts(connection), read_known_sources(connection)

    with Session(context.database) as session:
        try:
            server, closed = session.read_one_state(greet)
            findings += server_findings(server)
            findings += _server_features(context, server)
            if closed:
                missing = tuple(f"USAGE on schema {name}" for name in closed)
                role = RoleFacts(missing, (), (), is_superuser=False)
                return [*findings, *role_findings(role, server.powers)], known
            schema = _schema_finding(session)
            findings.append(schema)
            if schema.state == "ok":
                role, known = session.read_one_state(look)
                findings += role_findings(role, server.powers)
                findings += partition_findings(*session.read_one_state(read_partition_state))
                findings += replication_findings(session.read_one_state(read_replication))
                if not role.missing:
                    findings.append(_price_finding(context, session))
        except ConfigurationError as error:
            findings.append(configuration_failure(str(error)))
        except SchemaError as error:
            findings.append(Finding("database", "privileges", "failed", str(error)))
        except BillingError as error:
            findings.append(Finding("database", DATABASE_CONNECTION, "failed", str(error)))
    return findings, known


def _server_features(context: JobContext, server: ServerFacts) -> tuple[Finding, ...]:
    """Return what the server can't do for the jobs. What is tried is rolled back."""
    too_old = version_findings(server.major_version)
    if too_old or server.is_standby:
        return too_old
    with Session(context.database, dry_run=True) as session:
        return session.read(probe_server)


def _price_finding(context: JobContext, session: Session) -> Finding:
    unpriced = session.read_one_state(functools.partial(accounts_without_price, context.tariff))
    if not unpriced:
        return Finding("configuration", "prices", "ok", "every account has a price")
    without = f"{plural(unpriced, 'account')} without a price"
    text = f"{without}: usage stays pending until PRICE_PER_BYTE or a profile has one"
    return Finding("configuration", "prices", "warning", text)


def _schema_finding(session: Session) -> Finding:
    try:
        session.read_one_state(verify)
    except SchemaError as error:
        return Finding("database", "schema", "failed", str(error))
    text = f"at revision {HEAD_REVISION}, every table as needed"
    return Finding("database", "schema", "ok", text)


def _look_at_sources(
    context: JobContext, sources: Sequence[Source], known: Mapping[str, KnownSource]
) -> list[Finding]:
    """Return the findings about the sources, in their configured order."""
    from billing_cli.exporter.probe import probe_all, shared_tokens  # noqa: PLC0415 - slow

    now = context.clock()
    facts = probe_all(
        sources,
        now=now,
        concurrency=context.fetching.concurrency,
        deadline_seconds=context.fetching.deadline_seconds,
        default_token=context.default_token,
    )
    rivals = rivals_of(
        {name: found.identity for name, found in facts.items() if found.identity is not None},
        {state.identity.stored: source_id for source_id, state in known.items()},
    )
    findings = [shared_token_finding(ids) for ids in shared_tokens(sources, context.default_token)]
    for source in sources:
        stored = known.get(source.source_id)
        expected = Expectations(
            node_id=source.expected_node_id,
            env=source.expected_env,
            stored_identity=stored.identity if stored else None,
            stored_contract=stored.contract if stored else None,
            watermark=stored.watermark if stored else None,
            rival=rivals.get(source.source_id),
        )
        own = source.max_daily_charge
        daily = context.tariff.max_daily_charge_per_source if own is None else own
        findings.append(limits_finding(source, context.policy_of(source), daily))
        if missing := missing_assignment(source):
            text = f"without {' and '.join(missing)} whoever answers is believed"
            findings.append(Finding("source", "assignment", "warning", text, source.source_id))
        findings += source_findings(
            source.source_id,
            facts[source.source_id],
            expected,
            now=now,
            stalled_after=context.stalled_after,
        )
    return findings
