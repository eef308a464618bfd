"""The registry: the list of sources as a whole, and the files that its sources need."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from billing_cli.config.settings import load_settings
from billing_cli.config.source import Source
from billing_cli.core.model import DeltaPolicy
from billing_cli.jobs.opening import context_of
from tests.unit.config.support import (
    entry,
    error_of,
    from_environment,
    from_file,
    in_environment,
    problems_of,
    sources_error,
    sources_from,
    written,
)

if TYPE_CHECKING:
    from pathlib import Path

JP_1 = "EXPORTER_SOURCES_JSON[0] 'jp-1'"
A_LIST = "must be a list: [[sources]] in a file, JSON in the environment"
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


def test_an_unknown_key_in_a_hidden_list_is_an_error(tmp_path: Path) -> None:
    """A misspelt key is found before the variable goes; the hidden values are not checked."""
    path = written(
        tmp_path,
        '[[sources]]\nsource_id = "us-1"\nbase_url = "nowhere"\nexpcted_node_id = "us-1"\nfoo = ""',
    )
    hint = " (did you mean 'expected_node_id'?)"
    assert problems_of(str(path), in_environment(entry("jp-1"))) == [
        f"sources[0] 'us-1': expcted_node_id ({path}): unknown key{hint}",
        f"sources[0] 'us-1': foo ({path}): unknown key",
    ]
    assert len(problems_of(str(path), in_environment(entry("jp-1", mode="x")))) == 3


@pytest.mark.parametrize("text", ["sources = 3", "sources = [3]", "[sources]\nsource_id = 3"])
def test_a_hidden_value_that_is_no_list_of_sources_is_ignored(tmp_path: Path, text: str) -> None:
    """As every other value that a variable hides."""
    assert from_file(tmp_path, text, **in_environment(entry("jp-1"))).sources != ()


def test_one_url_is_the_source_called_default() -> None:
    """EXPORTER_BASE_URL alone makes one source."""
    settings = from_environment(EXPORTER_BASE_URL="http://127.0.0.1:8080/")
    assert settings.sources == (Source("default", "http://127.0.0.1:8080", auth_mode="none"),)
    assert settings.origin("sources") == "environment"


@pytest.mark.parametrize("url", ["https://left-over.example", "http://user:word@left-over.example"])
def test_a_list_hides_the_one_url(url: str) -> None:
    """Where a list is given, the URL beside it is neither a source nor checked nor kept."""
    settings = load_settings(None, in_environment(entry(), EXPORTER_BASE_URL=url))
    assert [source.source_id for source in settings.sources] == ["jp-1"]
    assert settings.exporter_base_url is None


@pytest.mark.parametrize("empty", ["[]", "null"])
def test_an_empty_list_leaves_the_one_url(empty: str) -> None:
    """An empty list is no list: deployments generate one where they know no sources."""
    settings = from_environment(
        EXPORTER_SOURCES_JSON=empty, EXPORTER_BASE_URL="https://jp-1.example"
    )
    assert [source.source_id for source in settings.sources] == ["default"]


def test_a_wrong_url_is_named_by_its_own_key() -> None:
    """The error of the one URL does not speak of lists that nobody wrote."""
    text = error_of(None, {"EXPORTER_BASE_URL": "http://jp-1.example"})
    assert text == f"EXPORTER_BASE_URL (environment): {LOOPBACK_ONLY}"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{}", A_LIST),
        ('{"sources": []}', A_LIST),
        ('"x"', A_LIST),
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
    assert error_of(str(path), {}) == f"sources ({path}): {A_LIST}"


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


def test_a_file_or_token_that_is_not_there_is_no_error_of_the_configuration() -> None:
    """It stops its own source when it is used, and not the run."""
    keys = {"client_cert": "/gone", "client_key": "/gone", "credential_ref": "env:GONE"}
    (source,) = sources_from(entry(**keys))
    assert (source.client_cert, source.credential_ref) == ("/gone", "env:GONE")


def test_keys_and_certificates_can_be_credentials() -> None:
    """credential:NAME in place of a path: the service's own user may read nothing else."""
    files = dict.fromkeys(("client_cert", "client_key", "ca_bundle"), "credential:key")
    (source,) = sources_from(entry(**files), CREDENTIALS_DIRECTORY="/run/credentials")
    assert {source.client_cert, source.client_key, source.ca_bundle} == {"/run/credentials/key"}


def test_a_certificate_that_is_no_credential_is_an_error() -> None:
    """The name of a credential is no path."""
    text = sources_error(entry(ca_bundle="credential:../ca"))
    assert text == f"{JP_1}: ca_bundle (environment): must be a path or credential:NAME"


def test_a_source_has_rates_of_its_own() -> None:
    """What it does not set is what holds for all sources."""
    environ = in_environment(entry("jp-1", account_rate_bits_per_second=5), entry("us-1"))
    context = context_of(
        load_settings(None, {**environ, "DATABASE_URL": "host=db dbname=account",
                             "BILLING_LINE_RATE_BITS_PER_SECOND": "0"}),
        "collect", "run",
    )  # fmt: skip
    jp_1, us_1 = context.sources
    assert context.policy_of(jp_1) == DeltaPolicy(5, 0)
    assert context.policy_of(us_1) == DeltaPolicy(line_rate_bits_per_second=0)
