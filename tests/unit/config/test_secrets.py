"""No secret in any error, repr, dump or log line, whichever way it got in."""

from __future__ import annotations

import io
import json
import traceback
from typing import TYPE_CHECKING, Any

import pytest

from billing_cli import logs
from billing_cli.config.redaction import redact, register_database_url
from billing_cli.config.settings import load_settings
from billing_cli.errors import ConfigurationError
from tests.unit.config.support import entry, from_environment, in_environment, written

if TYPE_CHECKING:
    from pathlib import Path

MARKER = "m4rk3r-s3cr3t"
URL = f"postgresql://billing:{MARKER}@db.example/account"


@pytest.mark.parametrize(
    "variables",
    [
        {"DATABASE_URL": f"mysql://billing:{MARKER}@db/account"},
        {"DATABASE_URL": MARKER},
        {"DATABASE_URL": f"postgresql://billing:{MARKER}@db", "BILLING_PAGE_LIMIT": "x"},
        {"DATABASE_URL": URL, "BILLING_DATABASE_URL_REF": "env:X"},
        {"BILLING_DATABASE_URL_REF": URL},
        {"BILLING_DATABASE_URL_REF": f"env:{MARKER}"},
        {"BILLING_DATABASE_URL_REF": "env:DSN", "DSN": f"mysql://billing:{MARKER}@db/account"},
        {"INTERNAL_SERVICE_TOKEN": f"{MARKER} {MARKER}"},
        {"INTERNAL_SERVICE_TOKEN": MARKER, "PRICE_PER_BYTE": MARKER},
        {"EXPORTER_BASE_URL": f"https://user:{MARKER}@jp-1.example"},
        {"EXPORTER_BASE_URL": f"https://jp-1.example/?token={MARKER}"},
        {"EXPORTER_BASE_URL": MARKER},
        in_environment(entry(base_url=f"https://user:{MARKER}@jp-1.example")),
        in_environment(entry(base_url=f"https://jp-1.example/#{MARKER}")),
        in_environment(entry(credential_ref=MARKER)),
        in_environment(entry(credential_ref=f"bearer:{MARKER}")),
        in_environment(entry(credential_ref={"token": MARKER})),
        in_environment(entry(proxy=f"http://user:{MARKER}@proxy.example")),
        in_environment(entry(token=MARKER)),
        in_environment(MARKER),
        in_environment(entry(mode=MARKER), INTERNAL_SERVICE_TOKEN=MARKER),
        {"EXPORTER_SOURCES_JSON": f'[{{"credential_ref": "{MARKER}'},
        {"EXPORTER_SOURCES_JSON": f'[{{"credential_ref": {MARKER}}}]'},
    ],
)
def test_an_error_holds_no_secret(variables: dict[str, str]) -> None:
    """Neither the text nor what is chained to the error repeats it."""
    with pytest.raises(ConfigurationError) as caught:
        load_settings(None, variables)
    error: BaseException | None = caught.value
    while error is not None:
        assert MARKER not in f"{error} {error!r}"
        assert not hasattr(error, "errors")  # Pydantic's own error keeps the input.
        error = error.__cause__ or error.__context__
    assert MARKER not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    "line",
    [
        'database_url = ["{}"]',
        'database_url = "{}"',
        'internal_service_token = "{} {}"',
        'internal_service_token = ["{}"]',
        'database_url_ref = "{}"',
        'exporter_base_url = "https://user:{}@jp-1"',
        'price_per_byte = ["{}"]',
        'internal_service_token = "{}',
    ],
)
def test_an_error_about_the_file_holds_no_secret(tmp_path: Path, line: str) -> None:
    """The same for values of the wrong type, and for broken TOML."""
    path = written(tmp_path, line.replace("{}", MARKER))
    with pytest.raises(ConfigurationError) as caught:
        load_settings(str(path), {})
    assert MARKER not in "".join(traceback.format_exception(caught.value))


def loaded() -> Any:
    """Return settings with a secret in each place where one may be."""
    return from_environment(
        DATABASE_URL=URL,
        INTERNAL_SERVICE_TOKEN=f"token-{MARKER}",
        JP_TOKEN=f"jp-{MARKER}",
        EXPORTER_SOURCES_JSON=json.dumps([entry(credential_ref="env:JP_TOKEN")]),
    )


def test_settings_show_no_secret() -> None:
    """Repr, text, dumps and sources can be shown to anybody."""
    settings = loaded()
    shown = [
        repr(settings),
        str(settings),
        repr(settings.model_dump()),
        repr(settings.model_dump(mode="json")),
        settings.model_dump_json(),
        repr(settings.sources),
        repr(settings.require_database_url()),
        repr([settings.origin(key) for key in type(settings).model_fields]),
        repr(vars(settings)),
    ]
    assert MARKER not in "".join(shown)
    assert settings.require_database_url().get_secret_value() == URL


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_what_was_loaded_is_masked_in_logs_at_debug(log_format: Any) -> None:
    """Loading alone makes the log blind for the secrets, also where drivers repeat them."""
    settings = loaded()
    stream = io.StringIO()
    logs.configure("debug", log_format, stream)
    logger = logs.get_logger()
    logger.debug("loaded", settings=settings, dump=settings.model_dump())
    logger.debug("connecting", dsn=settings.require_database_url().get_secret_value())
    words = f"authentication failed for {MARKER}"
    logger.debug(words)
    try:
        raise OSError(f"header 'Bearer token-{MARKER}'")  # noqa: TRY301
    except OSError:
        logger.exception("failed", token=settings.internal_service_token.get_secret_value())
    assert MARKER not in stream.getvalue()
    assert "***" in stream.getvalue()


def test_tokens_of_single_sources_are_masked_too(tmp_path: Path) -> None:
    """References are followed, so that what they lead to is known as a secret."""
    (tmp_path / "token").write_text("in-a-file\n", encoding="utf-8")
    (tmp_path / "empty").touch()
    sources = [
        entry("jp-1", credential_ref="env:JP_TOKEN"),
        entry("jp-2", credential_ref=f"file:{tmp_path}/token"),
        entry("jp-3", credential_ref=f"file:{tmp_path}/empty"),
    ]
    load_settings(None, in_environment(*sources, JP_TOKEN="in-a-variable"))
    assert redact("Bearer in-a-variable, Bearer in-a-file") == "Bearer ***, Bearer ***"


@pytest.mark.parametrize(
    ("url", "text", "expected"),
    [
        (
            "postgresql://u:p%40ss%2Fword@db/a",
            "it was p@ss/word or p%40ss%2Fword",
            "it was *** or ***",
        ),
        ("postgresql://db/a?user=u&password=hid%20den", "hid den", "***"),
        ("postgresql://db/a?sslpassword=hidden", "hidden", "***"),
        ("host=db password=hidden dbname=a", "hidden", "***"),
        ("host=db password = 'hid den' dbname=a", "hid den", "***"),
        (r"host=db password='it\'s' dbname=a", "it's", "***"),
        ("postgresql://u@db/a", "u at db in a", "u at db in a"),
        ("postgresql://u:hidden@[db/a", "hidden", "hidden"),
    ],
)
def test_passwords_are_found_in_connection_strings(url: str, text: str, expected: str) -> None:
    """As they are written, and as the driver sees them; the whole string is masked in any case."""
    register_database_url(url)
    assert redact(text) == expected
    assert redact(f"connecting to {url}") == "connecting to ***"
