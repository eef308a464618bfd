"""What an account pays by its profile, and what its stored balance means."""

from __future__ import annotations

import math
from decimal import Context, Decimal, localcontext

import pytest

from billing_cli.core.rating import ProfileRow, balance_of, exact_decimal, price_of
from tests.core.tariffs import NO_PROFILE

NANO_PRICE = Decimal("1e-9")


def test_the_profiles_price_is_charged_where_it_is_positive() -> None:
    """Else the environment's price counts."""
    default = Decimal("0.25")
    assert price_of(NO_PROFILE._replace(base_price_per_byte=0.5), default).per_byte == Decimal(
        "0.5"
    )
    for missing in (None, 0.0, -0.0, -3.0, -math.inf):
        profile = NO_PROFILE._replace(base_price_per_byte=missing)
        assert price_of(profile, default).per_byte == default


@pytest.mark.parametrize("missing", [None, 0.0, -0.0, -2.0, -math.inf])
def test_a_multiplier_that_is_missing_or_not_positive_counts_as_one(missing: float | None) -> None:
    """Each of the four by itself; the others keep what they say."""
    kept = ProfileRow(None, 2.0, 3.0, 5.0, 7.0)
    for field_name, expected in {
        "region_multiplier": (3, 5, 7),
        "line_multiplier": (2, 5, 7),
        "peak_multiplier": (6, 1, 7),
        "offpeak_multiplier": (6, 5, 1),
    }.items():
        paid = price_of(kept._replace(**{field_name: missing}), NANO_PRICE)
        told = [paid.multiplier, paid.peak_multiplier, paid.offpeak_multiplier]
        assert told == [Decimal(one) for one in expected]


def test_a_multiplier_below_one_is_a_discount() -> None:
    """Only what is missing or not positive counts as one."""
    paid = price_of(ProfileRow(None, 0.5, 0.5, 0.25, 1e-3), NANO_PRICE)
    told = (paid.multiplier, paid.peak_multiplier, paid.offpeak_multiplier)
    assert told == (Decimal("0.25"), Decimal("0.25"), Decimal("0.001"))


def test_a_balance_is_whole_whatever_the_callers_precision_is() -> None:
    """Nine places of a large balance are more digits than a caller may compute with."""
    with localcontext(Context(prec=5)):
        assert balance_of(123456.789) == Decimal("123456.789")


def test_a_stored_double_means_its_shortest_decimal() -> None:
    """0.1 is a tenth, not the binary fraction beside it."""
    assert exact_decimal(0.1) == Decimal("0.1")
    assert exact_decimal(1e-9) == Decimal("1e-9")
    assert exact_decimal(1.1e-7) == Decimal("1.1e-7")
    assert exact_decimal(None) == 0


@pytest.mark.parametrize(
    "profile",
    [
        NO_PROFILE._replace(base_price_per_byte=math.inf),
        NO_PROFILE._replace(base_price_per_byte=1_000_001.0),
        NO_PROFILE._replace(region_multiplier=math.inf),
        NO_PROFILE._replace(line_multiplier=math.inf, region_multiplier=0.5),
        NO_PROFILE._replace(line_multiplier=1e300, region_multiplier=1e300),
        NO_PROFILE._replace(line_multiplier=2_000.0, region_multiplier=2_000.0),
        NO_PROFILE._replace(peak_multiplier=math.inf),
        NO_PROFILE._replace(offpeak_multiplier=1e7),
    ],
)
def test_a_price_that_money_cant_be_computed_with_is_refused(profile: ProfileRow) -> None:
    """Infinite and absurd values are an error of that account, not an amount."""
    with pytest.raises(ValueError, match="a price or multiplier above 1000000"):
        price_of(profile, NANO_PRICE)


@pytest.mark.parametrize("name", ProfileRow._fields)
def test_a_profile_with_nan_is_refused(name: str) -> None:
    """Nobody knows what is meant, so the account is not charged at any other price."""
    with pytest.raises(ValueError, match="a price or multiplier that is NaN"):
        price_of(NO_PROFILE._replace(**{name: math.nan}), NANO_PRICE)


def test_a_million_is_the_largest_price_and_multiplier() -> None:
    """What is just as large can be computed with, and counts as it is."""
    million = ProfileRow(1e6, 1e3, 1e3, 1e6, 1e6)
    paid = price_of(million, NANO_PRICE)
    figures = {paid.per_byte, paid.multiplier, paid.peak_multiplier, paid.offpeak_multiplier}
    assert figures == {Decimal(1_000_000)}
    with pytest.raises(ValueError, match=r"^a price or multiplier above 1000000$"):
        price_of(NO_PROFILE, Decimal("1000000.000000001"))


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan, 1e15, -1e15, 1e300])
def test_a_balance_that_is_no_amount_is_refused(value: float) -> None:
    """What can't be an amount of money is not computed with."""
    with pytest.raises(ValueError, match="a balance of") as refused:
        balance_of(value)
    assert str(refused.value) == f"a balance of {value}"


@pytest.mark.parametrize(
    ("value", "balance"),
    [
        (12.5, "12.500000000"),
        (0.1 + 0.2, "0.300000000"),
        (-999999.123456789, "-999999.123456789"),
        (1e-9, "0.000000001"),
        (-0.0, "0.000000000"),
        (-1e-10, "0.000000000"),
        (999_999_999_999_999.0, "999999999999999.000000000"),
    ],
)
def test_a_balance_has_nine_places(value: float, balance: str) -> None:
    """Doubles carry noise behind the ninth place; nothing is never "-0"."""
    assert f"{balance_of(value):f}" == balance
