"""Short ways to load settings from made-up environments and files, and to read the log."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

from billing_cli import logs
from billing_cli.config.problems import InvalidConfigurationError
from billing_cli.config.settings import Settings, load_settings
from billing_cli.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

    from billing_cli.config.source import Source


def from_environment(**variables: str) -> Settings:
    """Load settings from these variables alone."""
    return load_settings(None, variables)


def from_file(directory: Path, text: str, **variables: str) -> Settings:
    """Load settings from a TOML text, and from variables over it."""
    return load_settings(str(written(directory, text)), variables)


def written(directory: Path, text: str) -> Path:
    """Return a configuration file that holds the text."""
    path = directory / "billing.toml"
    path.write_text(text, encoding="utf-8")
    return path


def error_of(config_path: str | None, environ: dict[str, str]) -> str:
    """Return the text of the ConfigurationError that loading must raise: one line, one problem."""
    with pytest.raises(ConfigurationError) as caught:
        load_settings(config_path, environ)
    text = str(caught.value)
    assert text.isprintable()
    return text


def problems_of(config_path: str | None, environ: dict[str, str]) -> list[str]:
    """Return the lines of the problems that loading must raise."""
    with pytest.raises(InvalidConfigurationError) as caught:
        load_settings(config_path, environ)
    assert all(problem.isprintable() and problem in str(caught.value)
               for problem in caught.value.problems)  # fmt: skip
    return list(caught.value.problems)


def sources_from(*entries: Any, **variables: str) -> tuple[Source, ...]:
    """Return the sources of a JSON list in the environment."""
    return load_settings(None, in_environment(*entries, **variables)).sources


def sources_error(*entries: Any, **variables: str) -> str:
    """Return the error that a JSON list in the environment leads to."""
    return error_of(None, in_environment(*entries, **variables))


def in_environment(*entries: Any, **variables: str) -> dict[str, str]:
    """Return an environment with a JSON list of sources."""
    return {"EXPORTER_SOURCES_JSON": json.dumps(list(entries)), **variables}


def entry(source_id: str = "jp-1", **keys: Any) -> dict[str, Any]:
    """Return a source that is right, but for the keys given."""
    return {"source_id": source_id, "base_url": f"https://{source_id}.example:8443", **keys}


def logged(stream: io.StringIO) -> list[dict[str, Any]]:
    """Return the JSON lines that were logged."""
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def fail(error: Exception, cause: Exception | None = None) -> NoReturn:
    """Raise the error."""
    raise error from cause


def json_stream(level: str = "info") -> io.StringIO:
    """Configure JSON logging and return what it writes to."""
    stream = io.StringIO()
    logs.configure(level, "json", stream)
    return stream
