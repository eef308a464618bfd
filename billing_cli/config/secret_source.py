"""Secrets by reference, as a source of settings below the environment and the file."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from pydantic_settings import PydanticBaseSettingsSource

from billing_cli.config.layers import REFERENCES, name_of, variables_of
from billing_cli.config.problems import ENVIRONMENT, label
from billing_cli.config.redaction import register_database_url, register_secret, register_url
from billing_cli.references import check_reference, read_secret

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pydantic.fields import FieldInfo
    from pydantic_settings import BaseSettings

_REGISTER = {
    "database_url": register_database_url,
    "internal_service_token": register_secret,
    "ping_url": register_url,
}


class SecretSource(PydanticBaseSettingsSource):
    """Reads the secrets that the sources above it refer to, and registers all for redaction.

    `followed` are the keys of the secrets that are read. When it was called, `origins` says where
    the value of each key comes from, and `problems` has a line for each secret that can't be had.
    """

    def __init__(
        self, settings: type[BaseSettings], environ: Mapping[str, str], followed: Sequence[str]
    ) -> None:
        super().__init__(settings)
        self._environ = environ
        self._followed = followed
        self._variables = variables_of(settings)
        self.file = ""
        self.origins: dict[str, str] = {}
        self.problems: list[str] = []

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:  # noqa: ARG002 - the library's signature
        """Return nothing: all is done by the call."""
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        """Return the secrets that were read, by the name that the settings know them by."""
        values = self.current_state
        names = {name_of(self.settings_cls, key): key for key in self.settings_cls.model_fields}
        for name in values:
            in_environment = name in self.settings_sources_data["EnvironmentSource"]
            self.origins[names.get(name, name)] = ENVIRONMENT if in_environment else self.file
        found: dict[str, Any] = {}
        for key, reference_key in REFERENCES.items():
            name = name_of(self.settings_cls, key)
            if isinstance(secret := values.get(name), str):
                _REGISTER[key](secret.strip())
            reference = values.get(reference_key)
            if name in values and reference is not None:
                other = self._label(reference_key)
                self.problems.append(f"{self._label(key)}: conflicts with {other}, set one of them")
            elif isinstance(reference, str) and key in self._followed:
                found |= self._read(key, reference_key, reference.strip())
        return found

    def _read(self, key: str, reference_key: str, reference: str) -> dict[str, Any]:
        with suppress(ValueError):
            # A reference in the wrong form is an error of its field.
            check_reference(reference)
            try:
                secret = read_secret(reference, self._environ)
            except ValueError as error:
                self.problems.append(f"{self._label(reference_key)}: {error}")
            else:
                _REGISTER[key](secret)
                self.origins[key] = f"{self.origins[reference_key]}, {reference}"
                return {name_of(self.settings_cls, key): secret}
        return {}

    def _label(self, key: str) -> str:
        return label(key, self.origins[key], self._variables)
