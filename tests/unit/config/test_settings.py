"""Settings: where values come from, what they may be, and what is said where they are wrong."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, time
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from billing_cli.core.peak import PeakHours
from tests.unit.config.support import error_of, from_environment, from_file, written

if TYPE_CHECKING:
    from pathlib import Path

URL = "postgresql://billing:pass@db.example/account"


@pytest.mark.parametrize(
    ("name", "text", "key", "value"),
    [
        ("DEFAULT_REGION", "jp", "default_region", "jp"),
        ("SOURCE_REVISION", " v2 ", "source_revision", "v2"),
        ("PRICE_PER_BYTE", "1e-9", "price_per_byte", Decimal("0.000000001")),
        ("PRICE_PER_BYTE", " 0.00000000009313225746154785 ", "price_per_byte",
         Decimal("0.00000000009313225746154785")),
        ("PRICE_PER_BYTE", "-0", "price_per_byte", Decimal(0)),
        ("PRICE_PER_BYTE", "+2.5E-3", "price_per_byte", Decimal("0.0025")),
        ("INITIAL_INCLUDED_QUOTA_BYTES", "9223372036854775807", "initial_included_quota_bytes",
         2**63 - 1),
        ("INITIAL_BALANCE", "-12.5", "initial_balance", Decimal("-12.5")),
        ("BILLING_SETTLE_SECONDS", "0", "settle_seconds", 0),
        ("BILLING_SETTLE_SECONDS", "3600", "settle_seconds", 3600),
        ("BILLING_STEP_MAX_SAMPLES", "1", "step_max_samples", 1),
        ("BILLING_PAGE_LIMIT", "10000", "page_limit", 10_000),
        ("BILLING_FETCH_CONCURRENCY", "200", "fetch_concurrency", 200),
        ("BILLING_RUN_DEADLINE_SECONDS", "0.5", "run_deadline_seconds", 0.5),
        ("BILLING_INITIAL_LOOKBACK_HOURS", "0", "initial_lookback_hours", 0),
        ("BILLING_LINE_RATE_BITS_PER_SECOND", "0", "line_rate_bits_per_second", 0),
        ("BILLING_ACCOUNT_RATE_BITS_PER_SECOND", "1000", "account_rate_bits_per_second", 1000),
        ("BILLING_BURST_HOURS", "1.5", "burst_hours", 1.5),
        ("BILLING_FREE_PACKAGES", '["trial", "staff"]', "free_packages", ("trial", "staff")),
        ("BILLING_ALLOW_ZERO_PRICE", "true", "allow_zero_price", True),
        ("BILLING_LATE_AFTER_SECONDS", "90", "late_after_seconds", 90.0),
        ("BILLING_STALLED_AFTER_SECONDS", "600", "stalled_after_seconds", 600.0),
        ("BILLING_CHARGE_FIRST_SNAPSHOT", "true", "charge_first_snapshot", True),
        ("BILLING_CHARGE_FIRST_SNAPSHOT", "0", "charge_first_snapshot", False),
        ("BILLING_LOG_LEVEL", "DEBUG", "log_level", "debug"),
        ("BILLING_LOG_FORMAT", "Json", "log_format", "json"),
        ("BILLING_CONNECT_TIMEOUT_SECONDS", "3", "connect_timeout_seconds", 3),
        ("BILLING_STATEMENT_TIMEOUT_SECONDS", "120", "statement_timeout_seconds", 120),
        ("BILLING_LOCK_TIMEOUT_SECONDS", "5", "lock_timeout_seconds", 5),
        ("BILLING_PEAK_TIMEZONE", "UTC", "peak_timezone", "UTC"),
    ],
)  # fmt: skip
def test_a_variable_sets_its_key(name: str, text: str, key: str, value: Any) -> None:
    """A variable is read under its contracted name, and says that it came from the environment."""
    settings = from_environment(**{name: text})
    assert getattr(settings, key) == value
    assert settings.origin(key) == "environment"


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("PRICE_PER_BYTE", "abc", "'abc' is not a decimal number"),
        ("PRICE_PER_BYTE", "0,5", "'0,5' is not a decimal number"),
        ("PRICE_PER_BYTE", "1_0", "'1_0' is not a decimal number"),
        ("PRICE_PER_BYTE", "\u0661", "'\u0661' is not a decimal number"),
        ("INITIAL_BALANCE", "1\u0660", "'1\u0660' is not a decimal number"),
        ("INITIAL_INCLUDED_QUOTA_BYTES", "1_000", "'1_000' is not a whole number"),
        ("BILLING_PAGE_LIMIT", "\u0661\u0662", "'\u0661\u0662' is not a whole number"),
        ("BILLING_BURST_HOURS", "1_0.5", "'1_0.5' is not a number"),
        ("BILLING_BURST_HOURS", "\u0662", "'\u0662' is not a number"),
        ("PRICE_PER_BYTE", "-0.1", "must be >= 0"),
        ("PRICE_PER_BYTE", "nan", "'nan' is not a finite number"),
        ("PRICE_PER_BYTE", "Infinity", "'Infinity' is not a finite number"),
        ("PRICE_PER_BYTE", "1e7", "must be <= 1000000"),
        ("PRICE_PER_BYTE", "1e-99999", "must have at most 40 decimal places"),
        ("INITIAL_INCLUDED_QUOTA_BYTES", "-1", "must be >= 0"),
        ("INITIAL_INCLUDED_QUOTA_BYTES", "1.5", "'1.5' is not a whole number"),
        ("INITIAL_INCLUDED_QUOTA_BYTES", "9223372036854775808", "must be <= 9223372036854775807"),
        ("INITIAL_BALANCE", "1e15", "must be < 1000000000000000"),
        ("INITIAL_BALANCE", "-1e15", "must be > -1000000000000000"),
        ("INITIAL_BALANCE", "0.1234567891", "must have at most 9 decimal places"),
        ("INITIAL_BALANCE", "x" * 90, f"'{'x' * 40}...' is not a decimal number"),
        ("BILLING_SETTLE_SECONDS", "-1", "must be >= 0"),
        ("BILLING_SETTLE_SECONDS", "3601", "must be <= 3600"),
        ("BILLING_SETTLE_SECONDS", "30s", "'30s' is not a whole number"),
        ("BILLING_STEP_MAX_SAMPLES", "0", "must be >= 1"),
        ("BILLING_PAGE_LIMIT", "0", "must be >= 1"),
        ("BILLING_PAGE_LIMIT", "10001", "must be <= 10000"),
        ("BILLING_FETCH_CONCURRENCY", "0", "must be >= 1"),
        ("BILLING_RUN_DEADLINE_SECONDS", "0", "must be > 0"),
        ("BILLING_RUN_DEADLINE_SECONDS", "inf", "'inf' is not a finite number"),
        ("BILLING_RUN_DEADLINE_SECONDS", "soon", "'soon' is not a number"),
        ("BILLING_LINE_RATE_BITS_PER_SECOND", "-1", "must be >= 0"),
        ("BILLING_BURST_HOURS", "0", "must be > 0"),
        (
            "BILLING_FREE_PACKAGES",
            "trial",
            'must be a list, such as ["free"]; not JSON: Expecting value at line 1 column 1',
        ),
        ("BILLING_FREE_PACKAGES", '{"trial": 1}', "must be a list"),
        ("BILLING_CHARGE_FIRST_SNAPSHOT", "maybe", "'maybe' is not true or false"),
        ("BILLING_LOG_LEVEL", "loud", "'loud' is not one of debug, info, warning, error"),
        ("BILLING_LOG_FORMAT", "xml", "'xml' is not one of auto, console, json"),
        ("BILLING_CONNECT_TIMEOUT_SECONDS", "0", "must be >= 1"),
        ("BILLING_PEAK_HOURS", "18-23", "'18-23' is not a range such as 18:00-23:30"),
        ("BILLING_PEAK_TIMEZONE", "Moon/Base",
         "'Moon/Base' is not a time zone that this system knows"),
        ("BILLING_PEAK_TIMEZONE", "../etc",
         "'../etc' is not a time zone that this system knows"),
        ("DEFAULT_REGION", "j\x00p", "must not hold control characters"),
        ("DEFAULT_REGION", "x" * 256, "must have at most 255 characters"),
        ("SOURCE_REVISION", "a\nb", "must not hold control characters"),
        ("DATABASE_URL", "mysql://billing@db/account", "must be a postgresql:// URL"),
        ("DATABASE_URL", "db.example", "must be a postgresql:// URL"),
        ("INTERNAL_SERVICE_TOKEN", "two words",
         "must be ASCII without white space or control characters"),
        ("INTERNAL_SERVICE_TOKEN", "t\u00f6ken",
         "must be ASCII without white space or control characters"),
        ("BILLING_DATABASE_URL_REF", "db.example",
         "must be env:NAME, file:/absolute/path or credential:NAME"),
    ],
)  # fmt: skip
def test_a_wrong_variable_is_one_line_that_names_it(name: str, text: str, reason: str) -> None:
    """The error names the variable, says that it stands in the environment, and what is wrong."""
    assert error_of(None, {name: text}) == f"{name} (environment): {reason}"


def test_a_wrong_key_in_the_file_is_one_line_that_names_the_file(tmp_path: Path) -> None:
    """The error names the key as the file has it, and the file."""
    path = written(tmp_path, 'price_per_byte = "abc"')
    text = error_of(str(path), {})
    assert text == f"price_per_byte ({path}): 'abc' is not a decimal number"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("settle_seconds = true", "must be a number, not true or false"),
        ("settle_seconds = 1.5", "1.5 is not a whole number"),
        ("settle_seconds = [30]", "the value is not a whole number"),
        ("run_deadline_seconds = false", "must be a number, not true or false"),
        ("price_per_byte = nan", "nan is not a finite number"),
        ('price_per_byte = "1_0"', "'1_0' is not a decimal number"),
        ("price_per_byte = true", "true is not a decimal number"),
        ("default_region = 5", "must be a string"),
        ("charge_first_snapshot = 2", "2 is not true or false"),
        ("database_url = 5", "must be a string"),
        ("database_url_ref = 5", "must be a string"),
        ("free_packages = 5", "must be a list"),
        (
            'free_packages = "free"',
            'must be a list, such as ["free"]; not JSON: Expecting value at line 1 column 1',
        ),
        ("exporter_base_url = 5", "must be a string"),
    ],
)
def test_a_value_of_the_wrong_type_is_an_error(tmp_path: Path, line: str, reason: str) -> None:
    """TOML knows types, and none is silently taken for another."""
    path = written(tmp_path, line)
    assert error_of(str(path), {}) == f"{line.partition(' ')[0]} ({path}): {reason}"


def test_a_decimal_in_the_file_stays_exact(tmp_path: Path) -> None:
    """A TOML float never goes through a binary float: no digit is added or lost."""
    settings = from_file(tmp_path, "price_per_byte = 0.1\ninitial_balance = 123456789.123456789")
    assert settings.price_per_byte == Decimal("0.1")
    assert settings.initial_balance == Decimal("123456789.123456789")


def test_numbers_of_the_file_are_spelled_as_toml_has_them(tmp_path: Path) -> None:
    """There, underscores may stand between digits."""
    settings = from_file(tmp_path, "price_per_byte = 1_0.5\npage_limit = 1_000\nburst_hours = 1e0")
    assert (settings.price_per_byte, settings.page_limit) == (Decimal("10.5"), 1000)
    assert settings.burst_hours == 1.0


def test_peak_hours_are_parsed_with_their_zone(tmp_path: Path) -> None:
    """The two keys make one value, whichever stands first in the file."""
    text = 'peak_hours = "18:00-23:30, 22:00-01:00"\npeak_timezone = "UTC"'
    peak = from_file(tmp_path, text).peak_hours
    assert peak == PeakHours(((time(18), time(23, 30)), (time(22), time(1))), UTC)
    assert peak.contains(datetime(2026, 4, 8, 0, 30, tzinfo=UTC))


def test_the_package_is_cheap_until_settings_are_loaded() -> None:
    """What a command needs before it is known imports neither pydantic nor structlog."""
    program = (
        "import sys, billing_cli.config, billing_cli.config.redaction, billing_cli.errors;"
        "print(sorted({'pydantic', 'pydantic_settings', 'structlog'} & sys.modules.keys()))"
    )
    shown = subprocess.check_output([sys.executable, "-c", program], text=True)  # noqa: S603
    assert shown == "[]\n"
