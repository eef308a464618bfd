"""Settings: what the environment and the file say, checked once, frozen from then on."""

from __future__ import annotations

from contextlib import suppress
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    Field,
    InstanceOf,
    PrivateAttr,
    ValidationError,
    ValidationInfo,
    field_serializer,
    field_validator,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from billing_cli.config.entry import SecretUrl
from billing_cli.config.fields import (
    Amount,
    CaseFree,
    DatabaseUrl,
    Number,
    PricePerByte,
    Text,
    Token,
    Whole,
    Zone,
    zone_of,
)
from billing_cli.config.layers import DEFAULT, label, read_layers, unknown_variables
from billing_cli.config.problems import first_problem
from billing_cli.config.redaction import register_database_url, register_secret, register_url
from billing_cli.config.references import check_reference, read_secret
from billing_cli.config.registry import check_files, default_source, located, sources_of
from billing_cli.core.model import MAX_TOTAL, DeltaPolicy
from billing_cli.core.peak import PeakHours, parse_ranges
from billing_cli.core.shard import Shard, parse_shard
from billing_cli.errors import ConfigurationError
from billing_cli.exporter.source import Source

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pydantic import SecretStr

    from billing_cli.config.layers import Layer

# Secrets that may be given as they are, or by the reference beside them.
REFERENCE_KEYS = {
    "database_url": "database_url_ref",
    "internal_service_token": "internal_service_token_ref",
    "ping_url": "ping_url_ref",
}
MAX_LATENESS_SECONDS = 30 * 86_400


def load_settings(
    config_path: str | None, environ: Mapping[str, str], *, files_checked: bool = True
) -> Settings:
    """Return the settings of the environment and of the file, the environment first.

    `config_path` is the file that was asked for on the command line; without it, `BILLING_CONFIG`
    and then the system-wide file are looked at. Commands that ask no exporter say
    `files_checked=False`, so that they also run for someone who may not read the sources' keys.
    Secrets are registered for redaction. Raises ConfigurationError with one line that names the
    key and where it came from.
    """
    layers = read_layers(config_path, environ, Settings.model_fields)
    values, origins = _merged(layers)
    _register_secrets(values)
    _resolve("database_url", values, origins, environ)
    has_token = not values.keys().isdisjoint(
        ("internal_service_token", "internal_service_token_ref")
    )
    if files_checked:
        _resolve("internal_service_token", values, origins, environ)
        _resolve("ping_url", values, origins, environ)
    values["sources"] = located(_sources(values, origins, has_token), environ)
    if files_checked:
        check_files(values["sources"], origins.get("sources", DEFAULT), environ)
        _register_tokens(values["sources"], environ)
    try:
        settings = Settings(**values)
    except ValidationError as error:
        key, reason = first_problem(error, Settings.model_fields)
        text = f"{label(key, origins[key])}: {reason}"
    else:
        settings.note_origins(origins, unknown_variables(environ, Settings.model_fields))
        return settings
    # Raised out here, so that the validation error, which holds the input, does not travel along.
    raise ConfigurationError(text)


class Settings(BaseSettings):
    """Every setting. A field's name is its key in the file; units stand at the end of the name.

    Made by `load_settings`. What is secret hides itself in the repr and in dumps.
    """

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", hide_input_in_errors=True, str_strip_whitespace=True
    )

    database_url: DatabaseUrl | None = None
    database_url_ref: Annotated[str, AfterValidator(check_reference)] | None = None
    connect_timeout_seconds: Annotated[Whole, Field(ge=1, le=300)] = 10
    statement_timeout_seconds: Annotated[Whole, Field(ge=1, le=3600)] = 30
    lock_timeout_seconds: Annotated[Whole, Field(ge=1, le=3600)] = 15

    sources: tuple[InstanceOf[Source], ...] = ()
    exporter_base_url: str | None = None
    internal_service_token: Token | None = None
    internal_service_token_ref: Annotated[str, AfterValidator(check_reference)] | None = None
    shard: InstanceOf[Shard] | None = None
    fetch_concurrency: Annotated[Whole, Field(ge=1, le=256)] = 32
    run_deadline_seconds: Annotated[Number, Field(gt=0, le=3600)] = 45.0
    page_limit: Annotated[Whole, Field(ge=1, le=10_000)] = 60
    step_max_samples: Annotated[Whole, Field(ge=1, le=100_000_000)] = 100_000
    initial_lookback_hours: Annotated[Whole, Field(ge=0, le=8760)] = 72

    settle_seconds: Annotated[Whole, Field(ge=0, le=3600)] = 30
    late_after_seconds: Annotated[Number, Field(gt=0, le=MAX_LATENESS_SECONDS)] = 150.0
    stalled_after_seconds: Annotated[Number, Field(gt=0, le=MAX_LATENESS_SECONDS)] = 300.0
    line_rate_bits_per_second: Annotated[Whole, Field(ge=0, le=10**15)] = 2_000_000_000
    charge_first_snapshot: bool = False

    default_region: Text = ""
    source_revision: Text = "billing-service-v1"
    price_per_byte: PricePerByte = Decimal(0)
    initial_included_quota_bytes: Annotated[Whole, Field(ge=0, le=MAX_TOTAL)] = 0
    initial_balance: Amount = Decimal(0)
    # The zone stands before the hours, which are parsed with it.
    peak_timezone: Zone = "UTC"
    peak_hours: InstanceOf[PeakHours] | None = None

    log_level: Annotated[Literal["debug", "info", "warning", "error"], CaseFree] = "info"
    log_format: Annotated[Literal["auto", "console", "json"], CaseFree] = "auto"

    metrics_file: Text | None = None
    ping_url: SecretUrl | None = None
    ping_url_ref: Annotated[str, AfterValidator(check_reference)] | None = None

    _origins: dict[str, str] = PrivateAttr(default_factory=dict)
    _unknown_environment: tuple[str, ...] = PrivateAttr(default=())

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - the signature is pydantic's
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what `load_settings` has read counts, never the process behind its back."""
        return (init_settings,)

    @field_validator("shard", mode="before")
    @classmethod
    def _parse_shard(cls, value: Any) -> Any:
        return parse_shard(value) if isinstance(value, str) else value

    @field_serializer("shard", when_used="json-unless-none")
    def _format_shard(self, value: Shard) -> str:
        return str(value)

    @field_validator("peak_hours", mode="before")
    @classmethod
    def _parse_peak_hours(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, str):
            return PeakHours(parse_ranges(value), zone_of(info.data.get("peak_timezone", "UTC")))
        return value

    @field_serializer("peak_hours", when_used="json-unless-none")
    def _format_peak_hours(self, value: PeakHours) -> str:
        return str(value)

    @property
    def unknown_environment(self) -> tuple[str, ...]:
        """The `BILLING_*` variables that mean nothing to this program."""
        return self._unknown_environment

    def origin(self, key: str) -> str:
        """Return where a field's value came from: `environment`, a file's path or `default`.

        The origin of a value that was reached by a reference holds the reference too.
        """
        return self._origins.get(key, DEFAULT)

    def require_database_url(self) -> SecretStr:
        """Return the connection string. Raises ConfigurationError where there is none."""
        if self.database_url is None:
            raise ConfigurationError("DATABASE_URL is not set")
        return self.database_url

    def delta_policy(self) -> DeltaPolicy:
        """Return what the delta computation may assume."""
        return DeltaPolicy(
            line_rate_bits_per_second=self.line_rate_bits_per_second,
            late_after_seconds=self.late_after_seconds,
            charge_first_snapshot=self.charge_first_snapshot,
        )

    def note_origins(self, origins: Mapping[str, str], unknown: tuple[str, ...]) -> None:
        """Keep where the values came from, beside the values."""
        self._origins.update(origins)
        self._unknown_environment = unknown


def _merged(layers: Sequence[Layer]) -> tuple[dict[str, Any], dict[str, str]]:
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for layer in layers:
        hidden = set(values)
        for pair in REFERENCE_KEYS.items():
            if layer.values.keys() >= set(pair):
                secret, reference = (label(key, layer.origin) for key in pair)
                raise ConfigurationError(
                    f"{secret}: can't stand beside {reference}, set one of them"
                )
            # Two keys for one value: whichever the stronger layer has hides both in the weaker one.
            hidden |= set() if values.keys().isdisjoint(pair) else set(pair)
        for key in layer.values.keys() - hidden:
            values[key] = layer.values[key]
            origins[key] = layer.origin
    return values, origins


def _register_secrets(values: Mapping[str, Any]) -> None:
    if isinstance(url := values.get("database_url"), str):
        register_database_url(url.strip())
    if isinstance(token := values.get("internal_service_token"), str):
        register_secret(token.strip())
    if isinstance(url := values.get("ping_url"), str):
        register_url(url.strip())


def _register_tokens(sources: Sequence[Source], environ: Mapping[str, str]) -> None:
    for source in sources:
        if source.enabled and source.credential_ref is not None:
            # A file that can't be used now is its source's error when it is used.
            with suppress(ValueError):
                register_secret(read_secret(source.credential_ref, environ))


def _resolve(
    key: str, values: dict[str, Any], origins: dict[str, str], environ: Mapping[str, str]
) -> None:
    reference_key = REFERENCE_KEYS[key]
    if reference_key not in values:
        return
    origin = origins[reference_key]
    try:
        reference = check_reference(str(values[reference_key]).strip())
        values[key] = read_secret(reference, environ)
    except ValueError as error:
        raise ConfigurationError(f"{label(reference_key, origin)}: {error}") from None
    origins[key] = f"{origin}, {reference}"
    _register_secrets({key: values[key]})


def _sources(
    values: dict[str, Any], origins: dict[str, str], has_token: bool
) -> tuple[Source, ...]:
    if "sources" in values:
        listed = sources_of(values["sources"], origins["sources"], has_shared_token=has_token)
        if listed:
            # A base URL beside a list means nothing, so it is neither checked nor kept.
            values.pop("exporter_base_url", None)
            return listed
    if "exporter_base_url" not in values:
        return ()
    origins["sources"] = origins["exporter_base_url"]
    base_url = values["exporter_base_url"]
    return (default_source(base_url, origins["sources"], has_shared_token=has_token),)
