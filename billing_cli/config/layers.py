"""The two places of configuration: environment variables over one TOML file."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import AliasChoices
from pydantic_settings import EnvSettingsSource, TomlConfigSettingsSource

from billing_cli.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from importlib.resources.abc import Traversable

    from pydantic_settings import BaseSettings
    from pydantic_settings.sources import ConfigFileSourceType

DEFAULT_CONFIG_PATH = "/etc/billing/billing.toml"
CONFIG_VARIABLE = "BILLING_CONFIG"
PREFIX = "BILLING_"
TEST_PREFIX = "BILLING_TEST_"

REFERENCES = {
    "database_url": "database_url_ref",
    "internal_service_token": "internal_service_token_ref",
    "ping_url": "ping_url_ref",
}
"""Secrets that can be given as they are, or by the reference with this key."""


class EnvironmentSource(EnvSettingsSource):
    """The variables of an environment. A blank one counts as not set."""

    def __init__(self, settings: type[BaseSettings], environ: Mapping[str, str]) -> None:
        self._environ = environ
        super().__init__(settings)

    def _load_env_vars(self) -> Mapping[str, str | None]:
        known = variables_of(self.settings_cls).values()
        texts = {name: self._environ.get(name, "") for name in known}
        return {name.lower(): text for name, text in texts.items() if text.strip()}


class FileSource(TomlConfigSettingsSource):
    """A TOML file. Keys are found in any case; a blank value counts as not given.

    A secret and the reference to it are one value: where the environment has either, neither of
    them counts in the file. Raises OSError, and ConfigurationError for what is not TOML.
    """

    def __init__(self, settings: type[BaseSettings], path: str) -> None:
        self.path = path
        variables = variables_of(settings)
        self._known = {name.lower() for name in (*variables, *variables.values())}
        super().__init__(settings, path)

    @staticmethod
    def _existing_files(files: ConfigFileSourceType | None) -> list[Path | Traversable]:
        # The library skips a file that is missing.
        return [Path(str(files))]

    def _read_file(self, file_path: Path | Traversable) -> dict[str, Any]:
        import tomllib  # noqa: PLC0415 - many deployments have no file

        try:
            with file_path.open("rb") as file:
                values = tomllib.load(file, parse_float=Decimal)
        except RecursionError:
            reason = "nested too deeply"
        except ValueError as error:
            reason = str(error)
        else:
            return self._by_lower_case(values, str(file_path))
        raise ConfigurationError(f"configuration file {file_path}: not TOML: {reason}")

    def _by_lower_case(self, values: Mapping[str, Any], path: str) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for written, value in values.items():
            key = written.lower()
            if key in found:
                raise ConfigurationError(f"{key} ({path}): given twice, in two spellings")
            is_blank = isinstance(value, str) and not value.strip()
            # A blank value is not given, but an unknown key is an error all the same.
            if not is_blank or key not in self._known:
                found[key] = value
        return found

    def __call__(self) -> dict[str, Any]:
        """Return the values by the name that the settings know them by."""
        hidden: set[str] = set()
        for key, reference in REFERENCES.items():
            pair = {name_of(self.settings_cls, key), reference}
            if pair & self.current_state.keys():
                hidden |= pair
        return {name: value for name, value in super().__call__().items() if name not in hidden}


def sources_for(
    settings: type[BaseSettings], config_path: str | None, environ: Mapping[str, str]
) -> tuple[EnvironmentSource | FileSource, ...]:
    """Return where values come from, the stronger one first.

    `config_path` is the file that the command line names; without it `BILLING_CONFIG` and then the
    system-wide file count. Raises ConfigurationError where a file can't be used, or one that was
    named is missing.
    """
    environment = EnvironmentSource(settings, environ)
    named = config_path or environ.get(CONFIG_VARIABLE, "").strip()
    path = named or DEFAULT_CONFIG_PATH
    try:
        return environment, FileSource(settings, path)
    except OSError as error:
        if not named and isinstance(error, FileNotFoundError | NotADirectoryError):
            return (environment,)
        reason = error.strerror
    raise ConfigurationError(f"configuration file {path}: {reason}")


def variables_of(settings: type[BaseSettings]) -> dict[str, str]:
    """Return the environment variable of each key of the file."""
    names = {key: name_of(settings, key) for key in settings.model_fields}
    return {key: PREFIX + key.upper() if name == key else name for key, name in names.items()}


def name_of(settings: type[BaseSettings], key: str) -> str:
    """Return the name by which the settings take a key: its unprefixed variable, or the key."""
    alias = settings.model_fields[key].validation_alias
    if isinstance(alias, AliasChoices):
        return str(alias.choices[0])
    return alias if isinstance(alias, str) else key


def unknown_variables(environ: Mapping[str, str], known: Mapping[str, str]) -> list[str]:
    """Return the `BILLING_*` variables that are not among the known ones, in order."""
    names = {*known.values(), CONFIG_VARIABLE}
    return sorted(
        name
        for name in environ
        if name.startswith(PREFIX) and not name.startswith(TEST_PREFIX) and name not in names
    )
