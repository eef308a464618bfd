"""The registry of sources: from a configured list to checked `Source` values."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from billing_cli.config.entry import SourceEntry, contradictions, resolved_auth_mode
from billing_cli.config.layers import ENVIRONMENT, label, shown_key, variable_of
from billing_cli.config.problems import first_problem
from billing_cli.config.redaction import redact
from billing_cli.config.references import located_file, missing_secret, unreadable_file
from billing_cli.core.model import NodeIdentity
from billing_cli.errors import ConfigurationError
from billing_cli.exporter.source import Source

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

DEFAULT_SOURCE_ID = "default"
FILE_KEYS = ("ca_bundle", "client_cert", "client_key")


def sources_of(value: Any, origin: str, *, has_shared_token: bool) -> tuple[Source, ...]:
    """Return the sources of a list, which is JSON text in the environment and tables in the file.

    `has_shared_token` tells whether a token is configured for sources that have none of their
    own. Raises ConfigurationError naming the source, the key and the origin.
    """
    entries = _parse_json(value) if origin == ENVIRONMENT else value
    if not isinstance(entries, list):
        wanted = "a JSON list" if origin == ENVIRONMENT else "a list of tables, [[sources]]"
        raise ConfigurationError(f"{label('sources', origin)}: must be {wanted}")
    sources: list[Source] = []
    for index, entry in enumerate(entries):
        try:
            sources.append(_source_of(entry, has_shared_token=has_shared_token))
        except _EntryError as error:
            place = _place(index, entry, origin)
            raise ConfigurationError(f"{place}: {error.key} ({origin}): {error.reason}") from None
    _refuse_twins(sources, origin)
    return tuple(sources)


def default_source(base_url: Any, origin: str, *, has_shared_token: bool) -> Source:
    """Return the one source of `EXPORTER_BASE_URL`. Raises ConfigurationError naming that key."""
    entry = {"source_id": DEFAULT_SOURCE_ID, "base_url": base_url}
    try:
        return _source_of(entry, has_shared_token=has_shared_token)
    except _EntryError as error:
        text = f"{label('exporter_base_url', origin)}: {error.reason}"
    raise ConfigurationError(text)


def located(sources: Iterable[Source], environ: Mapping[str, str]) -> tuple[Source, ...]:
    """Return the sources with paths in place of the credentials that stand for files."""
    found = []
    for source in sources:
        files: dict[str, Any] = {
            key: located_file(path, environ)
            for key in FILE_KEYS
            if (path := getattr(source, key)) is not None
        }
        found.append(replace(source, **files))
    return tuple(found)


def check_files(sources: Iterable[Source], origin: str, environ: Mapping[str, str]) -> None:
    """Raise ConfigurationError where an enabled source names a file or a secret that is not there.

    Whether a file holds what it should is judged when it is used, so that one which is just being
    replaced stops its own source only.
    """
    for index, source in enumerate(sources):
        if not source.enabled:
            continue
        reasons = {
            key: unreadable_file(path)
            for key in FILE_KEYS
            if (path := getattr(source, key)) is not None
        }
        if source.credential_ref is not None:
            reasons["credential_ref"] = missing_secret(source.credential_ref, environ)
        for key, reason in reasons.items():
            if reason is not None:
                place = _place(index, {"source_id": source.source_id}, origin)
                raise ConfigurationError(f"{place}: {key} ({origin}): {reason}")


class _EntryError(Exception):
    def __init__(self, key: str, reason: str) -> None:
        super().__init__(key, reason)
        self.key = key
        self.reason = reason


def _source_of(entry: Any, *, has_shared_token: bool) -> Source:
    checked = _checked(entry)
    mode = resolved_auth_mode(checked, has_shared_token=has_shared_token)
    resolved = checked.model_copy(update={"auth_mode": mode})
    for key, reason in contradictions(resolved, has_shared_token=has_shared_token):
        raise _EntryError(key, reason)
    return Source(**resolved.model_dump())


def _checked(entry: Any) -> SourceEntry:
    if not isinstance(entry, dict):
        raise _EntryError("the entry", "must be an object with the keys of a source")
    try:
        return SourceEntry.model_validate(entry)
    except ValidationError as error:
        key, reason = first_problem(error, SourceEntry.model_fields)
    # Raised out here, so that the validation error, which holds the input, does not travel along.
    raise _EntryError(shown_key(key), reason)


def _parse_json(text: str) -> Any:
    name = label("sources", ENVIRONMENT)
    try:
        return json.loads(text, object_pairs_hook=_unique_keys)
    except json.JSONDecodeError as error:
        reason = f"not JSON: {error.msg} at line {error.lineno} column {error.colno}"
    except RecursionError:
        reason = "not JSON: nested too deeply"
    except ValueError as error:
        reason = str(error).partition(";")[0]
    raise ConfigurationError(f"{name}: {reason}")


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = dict(pairs)
    if len(keys) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in keys if names.count(name) > 1)
        raise ValueError(f"{shown_key(twice)} is given twice in one object")
    return keys


def _refuse_twins(sources: Iterable[Source], origin: str) -> None:
    name = label("sources", origin)
    ids: set[str] = set()
    nodes: dict[str, str] = {}
    for source in sources:
        source_id = source.source_id
        if source_id in ids:
            raise ConfigurationError(f"{name}: source_id {source_id!r} is given twice")
        ids.add(source_id)
        if not source.enabled or source.expected_node_id is None:
            continue
        # Compared as it is stored: that is the name under which bytes would be billed twice.
        node = NodeIdentity(source.expected_env or "", source.expected_node_id).stored
        if node in nodes:
            raise ConfigurationError(
                f"{name}: sources {nodes[node]!r} and {source_id!r} both expect the node"
                f" {node!r} (expected_env, expected_node_id): a node belongs to one source"
            )
        nodes[node] = source_id


def _place(index: int, entry: Any, origin: str) -> str:
    name = variable_of("sources") if origin == ENVIRONMENT else "sources"
    source_id = entry.get("source_id") if isinstance(entry, dict) else None
    if not isinstance(source_id, str) or not source_id:
        return f"{name}[{index}]"
    return f"{name}[{index}] {redact(source_id[:64])!r}"
