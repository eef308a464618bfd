"""Settings: what the environment and the file say, checked once, frozen from then on."""

from __future__ import annotations

from contextlib import suppress
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    AliasChoices,
    BeforeValidator,
    Field,
    InstanceOf,
    PrivateAttr,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_serializer,
    field_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict

from billing_cli.config.connection_string import without_driver_parameters
from billing_cli.config.fields import (
    Amount,
    CaseFree,
    DatabaseUrl,
    Label,
    Maximum,
    Number,
    PricePerByte,
    Rate,
    StreamCount,
    Text,
    Token,
    Whole,
    Zone,
    from_json,
    list_from_json,
    zone_of,
)
from billing_cli.config.layers import (
    PREFIX,
    FileSource,
    sources_for,
    unknown_variables,
    variables_of,
)
from billing_cli.config.problems import (
    DEFAULT,
    ENVIRONMENT,
    InvalidConfigurationError,
    problems_of,
    unknown_variable,
)
from billing_cli.config.redaction import register_secret
from billing_cli.config.registry import DEFAULT_SOURCE_ID, completed, sources_of, unknown_keys_of
from billing_cli.config.secret_source import SecretSource
from billing_cli.config.source import SecretUrl, Source, check_exporter_url
from billing_cli.core.model import MAX_TOTAL, DeltaPolicy
from billing_cli.core.peak import PeakHours, parse_ranges
from billing_cli.core.shard import Shard, parse_shard
from billing_cli.errors import ConfigurationError
from billing_cli.references import (
    check_reference,
    read_secret,
    with_credentials_directory,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

MAX_LATENESS_SECONDS = 30 * 86_400
MAX_BURST_HOURS = 168


def load_settings(
    config_path: str | None, environ: Mapping[str, str], *, files_checked: bool = True
) -> Settings:
    """Return the settings of the environment and of the file, the environment first.

    `config_path` is the file that was asked for on the command line; without it, `BILLING_CONFIG`
    and then the system-wide file are looked at. Commands that ask no exporter say
    `files_checked=False`, so that they also run for someone who may read no secret but the
    database's. Secrets are registered for redaction. Raises ConfigurationError, which names every
    value that is wrong by its key and where it comes from.
    """
    variables = variables_of(Settings)
    followed = ("database_url", "ping_url") if files_checked else ("database_url",)
    sources = sources_for(Settings, config_path, environ)
    file = _file_of(sources)
    environ = with_credentials_directory(environ, file)
    secrets = SecretSource(Settings, environ, followed)
    secrets.file = file
    try:
        # The parameter is the library's own; its mypy plugin does not know it.
        settings = Settings(_build_sources=((*sources, secrets), {}))  # type: ignore[call-arg]
        problems = []
    except ValidationError as error:
        problems = problems_of(error, secrets.origins, variables)
    problems += secrets.problems
    if secrets.origins.get("sources") == ENVIRONMENT:
        # Hidden like any other value of the file, but an unknown key is an error all the same.
        for source in sources:
            if isinstance(source, FileSource):
                problems += unknown_keys_of(source.toml_data.get("sources", ()), file)
    problems += [
        unknown_variable(name, variables) for name in unknown_variables(environ, variables)
    ]
    if problems:
        # Raised out here: the validation error, which holds the input, does not travel along.
        raise InvalidConfigurationError(problems)
    settings = settings.with_sources(environ, secrets.origins)
    if files_checked:
        _register_tokens(settings.sources, environ)
    return settings


def credentials_environ(config_path: str | None, environ: Mapping[str, str]) -> Mapping[str, str]:
    """Return the environment in which a reference to a secret is read, as in `load_settings`."""
    sources = sources_for(Settings, config_path, environ)
    return with_credentials_directory(environ, _file_of(sources))


def _file_of(sources: Iterable[object]) -> str:
    return next((source.path for source in sources if isinstance(source, FileSource)), "")


class Settings(BaseSettings):
    """Every setting. A field's name is its key in the file; units stand at the end of the name.

    Its variable is the key in capitals after `BILLING_`, but for those that deployments set before
    this program existed. Made by `load_settings`. Secrets hide themselves in the repr and in dumps.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        enable_decoding=False,
        loc_by_alias=False,
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,
        str_strip_whitespace=True,
    )

    database_url: DatabaseUrl | None = Field(None, validation_alias="DATABASE_URL")
    database_url_ref: Annotated[str, AfterValidator(check_reference)] | None = None
    connect_timeout_seconds: Annotated[Whole, Field(ge=1, le=300)] = 10
    statement_timeout_seconds: Annotated[Whole, Field(ge=1, le=3600)] = 30
    lock_timeout_seconds: Annotated[Whole, Field(ge=1, le=3600)] = 15

    internal_service_token: Token | None = Field(None, validation_alias="INTERNAL_SERVICE_TOKEN")
    internal_service_token_ref: Annotated[str, AfterValidator(check_reference)] | None = None
    # In this order: the sources are checked with the token, and the URL with the sources.
    sources: tuple[InstanceOf[Source], ...] = Field(
        (), validation_alias=AliasChoices("EXPORTER_SOURCES_JSON", "sources")
    )
    exporter_base_url: Annotated[str, AfterValidator(check_exporter_url)] | None = Field(
        None, validation_alias="EXPORTER_BASE_URL"
    )
    shard: InstanceOf[Shard] | None = None
    fetch_concurrency: Annotated[Whole, Field(ge=1, le=256)] = 32
    run_deadline_seconds: Annotated[Number, Field(gt=0, le=3600)] = 25.0
    page_limit: Annotated[Whole, Field(ge=1, le=10_000)] = 60
    step_max_samples: Annotated[Whole, Field(ge=1, le=100_000_000)] = 100_000
    initial_lookback_hours: Annotated[Whole, Field(ge=0, le=8760)] = 72

    settle_seconds: Annotated[Whole, Field(ge=0, le=3600)] = 30
    late_after_seconds: Annotated[Number, Field(gt=0, le=MAX_LATENESS_SECONDS)] = 150.0
    stalled_after_seconds: Annotated[Number, Field(gt=0, le=MAX_LATENESS_SECONDS)] = 300.0
    account_rate_bits_per_second: Rate = 2_000_000_000
    line_rate_bits_per_second: Rate = 10_000_000_000
    burst_hours: Annotated[Number, Field(gt=0, le=MAX_BURST_HOURS)] = 2.0
    max_streams_per_account: StreamCount = 200
    max_new_streams_per_hour: StreamCount = 100_000
    max_unresolved_streams_per_hour: StreamCount = 20_000
    max_daily_charge: Maximum = Decimal(0)
    max_daily_charge_per_source: Maximum = Decimal(0)
    charge_first_snapshot: bool = False

    default_region: Text = Field("", validation_alias="DEFAULT_REGION")
    source_revision: Text = Field("billing-service-v1", validation_alias="SOURCE_REVISION")
    price_per_byte: PricePerByte = Field(Decimal(0), validation_alias="PRICE_PER_BYTE")
    initial_included_quota_bytes: Annotated[Whole, Field(ge=0, le=MAX_TOTAL)] = Field(
        0, validation_alias="INITIAL_INCLUDED_QUOTA_BYTES"
    )
    initial_balance: Amount = Field(Decimal(0), validation_alias="INITIAL_BALANCE")
    currency: Label = ""
    free_packages: Annotated[tuple[Text, ...], BeforeValidator(list_from_json)] = ()
    allow_zero_price: bool = False
    # The zone stands before the hours, which are parsed with it.
    peak_timezone: Zone = "UTC"
    peak_hours: InstanceOf[PeakHours] | None = None

    log_level: Annotated[Literal["debug", "info", "warning", "error"], CaseFree] = "info"
    log_format: Annotated[Literal["auto", "console", "json"], CaseFree] = "auto"

    metrics_file: Text | None = None
    ping_url: SecretUrl | None = None
    ping_url_ref: Annotated[str, AfterValidator(check_reference)] | None = None

    _origins: dict[str, str] = PrivateAttr(default_factory=dict)

    @field_validator("sources", mode="before")
    @classmethod
    def _check_sources(cls, value: Any, info: ValidationInfo) -> Any:
        # In JSON, `null` is a list of none.
        entries = from_json(value)
        token = cls._has_token(info.data)
        return sources_of(() if entries is None else entries, has_shared_token=token)

    @field_validator("exporter_base_url", mode="before")
    @classmethod
    def _ignore_beside_a_list(cls, value: Any, info: ValidationInfo) -> Any:
        return None if info.data.get("sources") else value

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

    def origin(self, key: str) -> str:
        """Return where a field's value came from: `environment`, a file's path or `default`.

        The origin of a value that was reached by a reference holds the reference too.
        """
        return self._origins.get(key, DEFAULT)

    def require_database_url(self) -> SecretStr:
        """Return the connection string as libpq takes it.

        Raises ConfigurationError where there is none.
        """
        if self.database_url is None:
            raise ConfigurationError(
                "DATABASE_URL is not set; `billing init` writes a configuration"
            )
        return SecretStr(without_driver_parameters(self.database_url.get_secret_value()).text)

    def ignored_parameters(self) -> str:
        """Return the names of the connection string's parameters that are ignored, with commas."""
        if self.database_url is None:
            return ""
        text = self.database_url.get_secret_value()
        return ", ".join(dict.fromkeys(without_driver_parameters(text).ignored))

    def delta_policy(self) -> DeltaPolicy:
        """Return what the delta computation may assume."""
        return DeltaPolicy(
            account_rate_bits_per_second=self.account_rate_bits_per_second,
            line_rate_bits_per_second=self.line_rate_bits_per_second,
            burst_hours=self.burst_hours,
            late_after_seconds=self.late_after_seconds,
            charge_first_snapshot=self.charge_first_snapshot,
            max_streams_per_account=self.max_streams_per_account,
            max_new_streams_per_hour=self.max_new_streams_per_hour,
            max_unresolved_streams_per_hour=self.max_unresolved_streams_per_hour,
        )

    def with_sources(self, environ: Mapping[str, str], origins: Mapping[str, str]) -> Settings:
        """Return the settings with complete sources, that know where each value comes from."""
        sources, known = self.sources, dict(origins)
        if not sources and self.exporter_base_url is not None:
            entry = {"source_id": DEFAULT_SOURCE_ID, "base_url": self.exporter_base_url}
            sources = sources_of([entry], has_shared_token=self._has_token(vars(self)))
            known["sources"] = known["exporter_base_url"]
        sources = completed(sources, environ, self.internal_service_token_ref)
        settings = self.model_copy(update={"sources": sources})
        settings._origins = known  # noqa: SLF001 - its own
        return settings

    @staticmethod
    def _has_token(values: Mapping[str, Any]) -> bool:
        # A token that is wrong is missing here, and counts: it has an error of its own.
        keys = ("internal_service_token", "internal_service_token_ref")
        return any(values.get(key, "") is not None for key in keys)


def _register_tokens(sources: Sequence[Source], environ: Mapping[str, str]) -> None:
    for source in sources:
        if source.enabled and source.credential_ref is not None:
            # A file that can't be used now is its source's error when it is used.
            with suppress(ValueError):
                register_secret(read_secret(source.credential_ref, environ))
