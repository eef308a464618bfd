"""The list of sources: from what is configured to checked `Source` values."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

from billing_cli.config.problems import UNKNOWN_KEY, unknown_source_keys
from billing_cli.config.redaction import redact
from billing_cli.config.source import Source, contradictions, resolved_auth_mode
from billing_cli.core.model import NodeIdentity
from billing_cli.references import located_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

DEFAULT_SOURCE_ID = "default"
FILE_KEYS = ("ca_bundle", "client_cert", "client_key")
KEYS = frozenset(field.name for field in fields(Source))
SOURCE = TypeAdapter(Source)
UNKNOWN_ARGUMENT = "unexpected_keyword_argument"


def sources_of(entries: Any, *, has_shared_token: bool) -> tuple[Source, ...]:
    """Return the sources of a list of tables.

    `has_shared_token` says whether a token is configured for sources that have none of their
    own. Raises ValueError for what is no list, and ValidationError with every problem of every
    source, each located by the source's place in the list and the key.
    """
    if not isinstance(entries, list | tuple):
        raise ValueError("must be a list: [[sources]] in a file, JSON in the environment")  # noqa: TRY004 - pydantic's way
    sources: list[Source] = []
    problems: list[InitErrorDetails] = []
    for index, entry in enumerate(entries):
        place = _place(index, entry)
        if not isinstance(entry, dict):
            problems.append(_problem("must be an object with the keys of a source", place))
            continue
        try:
            source = SOURCE.validate_python(_without_absent(entry))
        except ValidationError as error:
            problems += [_located(found, place) for found in error.errors(include_url=False)]
            continue
        mode = resolved_auth_mode(source, has_shared_token=has_shared_token)
        source = replace(source, auth_mode=mode)
        for key, reason in contradictions(source, has_shared_token=has_shared_token):
            problems.append(_problem(reason, place, key))
        sources.append(source)
    problems += [_problem(reason) for reason in _duplicates(sources)]
    if problems:
        raise ValidationError.from_exception_data("sources", problems, hide_input=True)
    return tuple(sources)


def unknown_keys_of(entries: Any, path: str) -> list[str]:
    """Return a line for each unknown key in the sources of a file; nothing else is checked."""
    try:
        sources_of(entries, has_shared_token=True)
    except ValidationError as error:
        return unknown_source_keys(error, path)
    except ValueError:
        pass  # No list.
    return []


def completed(
    sources: Iterable[Source], environ: Mapping[str, str], shared_token_ref: str | None
) -> tuple[Source, ...]:
    """Return the sources with paths in place of credentials.

    A source that sends the shared token gets the reference to it as its own: where it leads
    nowhere, this source fails, and not the run.
    """
    found = []
    for source in sources:
        changes: dict[str, Any] = {
            key: located_file(path, environ)
            for key in FILE_KEYS
            if (path := getattr(source, key)) is not None
        }
        reference = source.credential_ref
        if source.auth_mode == "bearer" and reference is None:
            reference = shared_token_ref
        if reference and (path := located_file(reference, environ)) != reference:
            reference = f"file:{path}"
        changes["credential_ref"] = reference
        found.append(replace(source, **changes))
    return tuple(found)


def _without_absent(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out empty strings and nulls: they count as not given."""
    return {
        key: value
        for key, value in entry.items()
        if (value is not None and value != "") or key not in KEYS
    }


def _duplicates(sources: Iterable[Source]) -> Iterator[str]:
    ids: set[str] = set()
    nodes: dict[str, str] = {}
    for source in sources:
        source_id = source.source_id
        if source_id in ids:
            yield f"source_id {source_id!r} is given twice"
        ids.add(source_id)
        if not source.enabled or source.expected_node_id is None:
            continue
        # Compared as it is stored: that is the name under which bytes would be billed twice.
        node = NodeIdentity(source.expected_env or "", source.expected_node_id).stored
        if node in nodes:
            yield (
                f"sources {nodes[node]!r} and {source_id!r} both expect the node"
                f" {node!r} (expected_env, expected_node_id): a node belongs to one source"
            )
        nodes[node] = source_id


def _place(index: int, entry: Any) -> str:
    source_id = entry.get("source_id") if isinstance(entry, dict) else None
    if not isinstance(source_id, str) or not source_id:
        return f"[{index}]"
    return f"[{index}] {redact(source_id[:64])!r}"


def _problem(reason: str, *location: str) -> InitErrorDetails:
    error = PydanticCustomError("source", "{reason}", {"reason": reason})
    return InitErrorDetails(type=error, loc=location, input=None)


def _located(found: Any, place: str) -> InitErrorDetails:
    return InitErrorDetails(
        type=UNKNOWN_KEY if found["type"] == UNKNOWN_ARGUMENT else found["type"],
        loc=(place, *found["loc"]),
        input=found["input"],
        ctx=found.get("ctx", {}),
    )
