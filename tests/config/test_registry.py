"""The registry: the list of sources as a whole, and the files that its sources need."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from billing_cli.config.settings import load_settings
from billing_cli.exporter.source import Source
from tests.config.support import (
    entry,
    error_of,
    from_environment,
    from_file,
    in_environment,
    sources_error,
    sources_from,
    written,
)

if TYPE_CHECKING:
    from pathlib import Path

JP_1 = "EXPORTER_SOURCES_JSON[0] 'jp-1'"
LOOPBACK_ONLY = "http is for loopback hosts only (use https, or a source with allow_http = true)"


def test_tables_of_the_file_and_the_list_of_the_environment_mean_the_same(tmp_path: Path) -> None:
    """The same keys in TOML and in JSON give equal sources."""
    text = """
        [[sources]]
        source_id = "jp-1"
        base_url = "https://jp-1.example:8443"
        timeout_seconds = 0.1
        enabled = false

        [[sources]]
        source_id = "us-1"
        base_url = "https://us-1.example:8443"
    """
    assert from_file(tmp_path, text).sources == sources_from(
        entry("jp-1", timeout_seconds=0.1, enabled=False), entry("us-1")
    )


def test_a_list_in_the_environment_hides_the_list_of_the_file(tmp_path: Path) -> None:
    """Lists are not mixed: the stronger one counts alone."""
    text = '[[sources]]\nsource_id = "us-1"\nbase_url = "https://us-1.example"'
    settings = from_file(tmp_path, text, **in_environment(entry("jp-1")))
    assert [source.source_id for source in settings.sources] == ["jp-1"]
    assert settings.origin("sources") == "environment"


def test_one_url_is_the_source_called_default() -> None:
    """EXPORTER_BASE_URL alone makes one source."""
    settings = from_environment(EXPORTER_BASE_URL="http://127.0.0.1:8080/")
    assert settings.sources == (Source("default", "http://127.0.0.1:8080"),)
    assert settings.origin("sources") == "environment"


def test_one_url_in_the_file_is_the_source_called_default(tmp_path: Path) -> None:
    """The file knows exporter_base_url as well."""
    settings = from_file(tmp_path, 'exporter_base_url = "https://jp-1.example"')
    assert settings.sources == (Source("default", "https://jp-1.example"),)
    assert settings.origin("sources") == str(tmp_path / "billing.toml")


@pytest.mark.parametrize("url", ["https://left-over.example", "http://user:word@left-over.example"])
def test_a_list_hides_the_one_url(url: str) -> None:
    """Where a list is given, the URL beside it is neither a source nor checked nor kept."""
    settings = load_settings(None, in_environment(entry(), EXPORTER_BASE_URL=url))
    assert [source.source_id for source in settings.sources] == ["jp-1"]
    assert settings.exporter_base_url is None


def test_an_empty_list_leaves_the_one_url() -> None:
    """An empty list is no list: deployments generate one where they know no sources."""
    settings = from_environment(
        EXPORTER_SOURCES_JSON="[]", EXPORTER_BASE_URL="https://jp-1.example"
    )
    assert [source.source_id for source in settings.sources] == ["default"]


def test_a_wrong_url_is_named_by_its_own_key() -> None:
    """The error of the one URL does not speak of lists that nobody wrote."""
    text = error_of(None, {"EXPORTER_BASE_URL": "http://jp-1.example"})
    assert text == f"EXPORTER_BASE_URL (environment): {LOOPBACK_ONLY}"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{}", "must be a JSON list"),
        ('{"sources": []}', "must be a JSON list"),
        ("null", "must be a JSON list"),
        ('"x"', "must be a JSON list"),
        ("[", "not JSON: Expecting value at line 1 column 2"),
        ('[\n  {"source_id" "jp-1"}\n]', "not JSON: Expecting ':' delimiter at line 2 column 16"),
        ("[" * 100_000, "not JSON: nested too deeply"),
        ('[{"source_id": "a", "source_id": "b"}]', "source_id is given twice in one object"),
    ],
)  # fmt: skip
def test_what_is_no_list_is_an_error_that_says_where(text: str, reason: str) -> None:
    """Broken JSON is told with line and column, other JSON with what it should be."""
    found = error_of(None, {"EXPORTER_SOURCES_JSON": text})
    assert found == f"EXPORTER_SOURCES_JSON (environment): {reason}"


@pytest.mark.parametrize("wrong", [5, "jp-1", None, []])
def test_an_entry_that_is_no_object_is_an_error(wrong: Any) -> None:
    """The place in the list is named."""
    assert sources_error(entry(), wrong) == (
        "EXPORTER_SOURCES_JSON[1]: the entry (environment):"
        " must be an object with the keys of a source"
    )


def test_a_single_table_in_the_file_is_an_error(tmp_path: Path) -> None:
    """[sources] in place of [[sources]] is a slip that gets a hint."""
    path = written(tmp_path, '[sources]\nsource_id = "jp-1"\nbase_url = "https://jp-1"')
    assert error_of(str(path), {}) == f"sources ({path}): must be a list of tables, [[sources]]"


def test_an_id_given_twice_is_an_error() -> None:
    """Ids name sources, also disabled ones."""
    text = sources_error(entry(), entry(enabled=False))
    assert text == "EXPORTER_SOURCES_JSON (environment): source_id 'jp-1' is given twice"


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"expected_env": "prod"}, {"expected_env": "prod"}),
        ({}, {}),
        ({"expected_env": "prod"}, {"expected_env": "", "expected_node_id": "prod:node"}),
    ],
)
def test_two_sources_for_one_node_are_an_error_that_names_both(
    first: dict[str, str], second: dict[str, str]
) -> None:
    """Bytes of one node would be billed twice; what counts is the name that is stored."""
    text = sources_error(
        entry("jp-1", **{"expected_node_id": "node"} | first),
        entry("jp-2", **{"expected_node_id": "node"} | second),
    )
    assert "sources 'jp-1' and 'jp-2' both expect the node" in text
    assert "expected_node_id" in text


def test_one_node_id_in_two_environments_is_two_nodes() -> None:
    """The environment is part of a node's name."""
    sources = sources_from(
        entry("jp-1", expected_node_id="node", expected_env="prod"),
        entry("jp-2", expected_node_id="node", expected_env="test"),
        entry("jp-3", expected_env="test"),
        entry("jp-4", expected_env="test"),
    )
    assert len(sources) == 4


def test_a_disabled_source_is_kept_but_may_share_a_node_and_miss_its_files() -> None:
    """The old source of a node stays in the list, switched off, without its certificate."""
    old = entry(
        "jp-old", enabled=False, expected_node_id="node", client_cert="/gone", client_key="/gone"
    )
    sources = sources_from(old, entry("jp-1", expected_node_id="node"))
    assert [(source.source_id, source.enabled) for source in sources] == [
        ("jp-old", False),
        ("jp-1", True),
    ]


def test_a_disabled_source_is_still_well_formed() -> None:
    """A typing error does not wait for the day on which the source is enabled."""
    assert "base_url" in sources_error(entry(enabled=False, base_url="jp-1"))


@pytest.mark.parametrize("key", ["ca_bundle", "client_cert", "client_key", "credential_ref"])
def test_a_file_that_is_not_there_is_an_error(tmp_path: Path, key: str) -> None:
    """The error names source, key and file."""
    good, gone = str(tmp_path / "good.pem"), str(tmp_path / "gone.pem")
    (tmp_path / "good.pem").touch()
    keys = {"client_cert": good, "client_key": good, "ca_bundle": good}
    keys[key] = f"file:{gone}" if key == "credential_ref" else gone
    text = sources_error(entry(**keys))
    assert text == f"{JP_1}: {key} (environment): {gone}: No such file or directory"


def test_a_pipe_or_directory_in_place_of_a_file_is_an_error(tmp_path: Path) -> None:
    """A bundle is one file; a pipe would keep the run waiting."""
    os.mkfifo(tmp_path / "pipe")
    text = sources_error(entry(credential_ref=f"file:{tmp_path}/pipe"))
    assert text == f"{JP_1}: credential_ref (environment): {tmp_path}/pipe: not a regular file"
    text = sources_error(entry(ca_bundle=str(tmp_path)))
    assert text == f"{JP_1}: ca_bundle (environment): {tmp_path}: not a regular file"


def test_a_file_that_may_not_be_read_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lack of permission is told before the first connection."""
    (tmp_path / "ca.pem").touch()
    monkeypatch.setattr("os.access", lambda *_: False)
    text = sources_error(entry(ca_bundle=f"{tmp_path}/ca.pem"))
    assert text == f"{JP_1}: ca_bundle (environment): {tmp_path}/ca.pem: permission denied"


@pytest.mark.parametrize(
    ("reference", "reason"),
    [
        ("env:JP_TOKEN", "the environment variable JP_TOKEN is not set"),
        ("credential:jp", "$CREDENTIALS_DIRECTORY is not set (the service manager sets it)"),
    ],
)
def test_a_credential_that_leads_nowhere_is_an_error(reference: str, reason: str) -> None:
    """A reference is followed at load, though not read."""
    text = sources_error(entry(credential_ref=reference), JP_TOKEN="")
    assert text == f"{JP_1}: credential_ref (environment): {reason}"


def test_a_credential_is_looked_for_where_the_service_manager_put_it(tmp_path: Path) -> None:
    """credential:NAME is a file of $CREDENTIALS_DIRECTORY."""
    (tmp_path / "jp").write_text("token", encoding="utf-8")
    source = entry(credential_ref="credential:jp")
    assert sources_from(source, CREDENTIALS_DIRECTORY=str(tmp_path))[0].auth_mode == "bearer"
    text = sources_error(source, CREDENTIALS_DIRECTORY=str(tmp_path / "none"))
    assert text.endswith(f"{tmp_path}/none/jp: No such file or directory")


def test_keys_and_certificates_can_be_credentials(tmp_path: Path) -> None:
    """credential:NAME in place of a path: the service's own user may read nothing else."""
    (tmp_path / "key").touch()
    files = dict.fromkeys(("client_cert", "client_key", "ca_bundle"), "credential:key")
    (source,) = sources_from(entry(**files), CREDENTIALS_DIRECTORY=str(tmp_path))
    assert {source.client_cert, source.client_key, source.ca_bundle} == {f"{tmp_path}/key"}
    text = sources_error(entry(**files), CREDENTIALS_DIRECTORY=f"{tmp_path}/none")
    assert (
        text == f"{JP_1}: ca_bundle (environment): {tmp_path}/none/key: No such file or directory"
    )


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("credential:ca", "$CREDENTIALS_DIRECTORY is not set (the service manager sets it)"),
        ("credential:../ca", "must be a path or credential:NAME"),
    ],
)
def test_a_certificate_that_is_no_credential_is_an_error(path: str, reason: str) -> None:
    """It is told before the first connection, like a path that leads nowhere."""
    text = sources_error(entry(ca_bundle=path))
    assert text == f"{JP_1}: ca_bundle (environment): {reason}"


def test_what_a_file_holds_is_not_judged_at_load(tmp_path: Path) -> None:
    """A certificate that is being replaced stops its source when it is used, not every command."""
    (tmp_path / "half.pem").write_bytes(b"-----BEGIN CERT")
    path = str(tmp_path / "half.pem")
    assert sources_from(entry(ca_bundle=path))[0].ca_bundle == path


def test_commands_that_ask_no_exporter_load_without_its_files() -> None:
    """An operator who may not read the keys can still look at the status."""
    keys = {"client_cert": "/gone", "client_key": "/gone", "credential_ref": "env:GONE"}
    settings = load_settings(None, in_environment(entry(**keys)), files_checked=False)
    assert settings.sources[0].client_cert == "/gone"
