"""What an account pays by its profile and the configuration, and what its balance means."""

from __future__ import annotations

import math
from dataclasses import replace
from decimal import Context, Decimal, localcontext

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing_cli.core.model import Price
from billing_cli.core.prices import (
    NOT_CONFIGURED,
    TOO_LARGE,
    NoPrice,
    PriceList,
    ProfileRow,
    exact_decimal,
    price_of,
)
from billing_cli.core.rating import balance_of
from tests.unit.core.examples import examples
from tests.unit.core.tariffs import NO_PROFILE

NANO_PRICE = Decimal("1e-9")
DEFAULT = PriceList(NANO_PRICE)

stored = st.one_of(st.none(), st.floats(-1, 1e7), st.sampled_from([0.0, math.nan, math.inf]))
profiles = st.builds(ProfileRow, st.sampled_from([None, "", "basic", "trial"]), *[stored] * 5)
price_lists = st.builds(
    PriceList,
    st.sampled_from([Decimal(0), NANO_PRICE]),
    st.sampled_from([frozenset[str](), frozenset({"trial", "staff"})]),
    st.booleans(),
)


def priced(profile: ProfileRow, prices: PriceList = DEFAULT) -> Price:
    """Return the price that there must be."""
    found = price_of(profile, prices)
    assert isinstance(found, Price)
    return found


def test_the_profiles_price_is_charged_where_it_is_positive() -> None:
    """Else the environment's price counts."""
    assert priced(NO_PROFILE._replace(base_price_per_byte=0.5)).per_byte == Decimal("0.5")
    for missing in (None, 0.0, -0.0, -3.0, math.nan, -math.inf):
        profile = NO_PROFILE._replace(base_price_per_byte=missing)
        assert priced(profile).per_byte == NANO_PRICE


def test_a_free_package_costs_nothing_whatever_else_is_configured() -> None:
    """Neither the profile's price nor the environment's counts; other packages pay."""
    prices = PriceList(NANO_PRICE, frozenset({"trial"}))
    for base in (None, 0.0, 0.5):
        assert priced(ProfileRow("trial", base), prices).per_byte == 0
    assert priced(ProfileRow("basic"), prices).per_byte == NANO_PRICE
    assert priced(ProfileRow("Trial"), prices).per_byte == NANO_PRICE
    for unusable in (ProfileRow("trial", math.inf), ProfileRow("trial", None, math.inf)):
        assert priced(unusable, prices).per_byte == 0


def test_multipliers_by_the_hour_count_only_where_there_are_such_hours() -> None:
    """One that can't be computed with is no reason to charge nothing."""
    profile = NO_PROFILE._replace(peak_multiplier=math.inf, offpeak_multiplier=2.0)
    assert price_of(profile, DEFAULT) == TOO_LARGE
    assert priced(profile, replace(DEFAULT, has_peak_hours=False)).offpeak_multiplier == 1


def test_an_account_without_any_price_has_none() -> None:
    """Nothing configured is not a price of 0, unless the configuration says so."""
    for base in (None, 0.0, -1.0, math.nan):
        assert price_of(ProfileRow("basic", base), PriceList()) == NOT_CONFIGURED
        assert priced(ProfileRow("basic", base), PriceList(allow_zero_price=True)).per_byte == 0
    assert price_of(NO_PROFILE, PriceList()) == NOT_CONFIGURED


@examples()
@given(profiles, price_lists)
def test_a_price_of_0_is_always_meant(profile: ProfileRow, prices: PriceList) -> None:
    """For any profile: 0 only for a free package or by consent, else the first positive price."""
    found = price_of(profile, prices)
    is_free = profile.package_name in prices.free_packages
    if isinstance(found, NoPrice):
        assert found == TOO_LARGE or not (
            is_free or prices.allow_zero_price or prices.price_per_byte
        )
        return
    if is_free:
        assert found.per_byte == 0
    elif (base := profile.base_price_per_byte) is not None and base > 0:
        assert found.per_byte == Decimal(repr(base))
    else:
        assert found.per_byte == prices.price_per_byte
        assert found.per_byte > 0 or prices.allow_zero_price
    assert 0 < found.multiplier <= 10**6
    assert min(found.peak_multiplier, found.offpeak_multiplier) > 0


@pytest.mark.parametrize("missing", [None, 0.0, -0.0, -2.0, math.nan, -math.inf])
def test_a_multiplier_that_is_missing_or_not_positive_counts_as_one(missing: float | None) -> None:
    """Each of the four by itself; the others keep what they say."""
    kept = ProfileRow(None, None, 2.0, 3.0, 5.0, 7.0)
    for field_name, expected in {
        "region_multiplier": (3, 5, 7),
        "line_multiplier": (2, 5, 7),
        "peak_multiplier": (6, 1, 7),
        "offpeak_multiplier": (6, 5, 1),
    }.items():
        paid = priced(kept._replace(**{field_name: missing}))
        found = [paid.multiplier, paid.peak_multiplier, paid.offpeak_multiplier]
        assert found == [Decimal(figure) for figure in expected]


def test_a_multiplier_below_one_is_a_discount() -> None:
    """Only what is missing or not positive counts as one."""
    paid = priced(ProfileRow(None, None, 0.5, 0.5, 0.25, 1e-3))
    found = (paid.multiplier, paid.peak_multiplier, paid.offpeak_multiplier)
    assert found == (Decimal("0.25"), Decimal("0.25"), Decimal("0.001"))


def test_a_balance_is_whole_whatever_the_callers_precision_is() -> None:
    """Nine places of a large balance are more digits than a caller may compute with."""
    with localcontext(Context(prec=5)):
        assert balance_of(123456.789) == Decimal("123456.789")


def test_a_stored_double_means_its_shortest_decimal() -> None:
    """0.1 is a tenth, not the binary fraction beside it."""
    assert exact_decimal(0.1) == Decimal("0.1")
    assert exact_decimal(1e-9) == Decimal("1e-9")
    assert exact_decimal(1.1e-7) == Decimal("1.1e-7")
    assert exact_decimal(None) == exact_decimal(math.nan) == 0


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
        ProfileRow(None, 1e6, 1e6),
        ProfileRow(None, 1e6, 1.5),
        ProfileRow(None, 1e3, 1e2, 1e1, 1.5),
        ProfileRow(None, 1e3, 1e2, 1e1, 0.5, 1.5),
    ],
)
def test_a_price_that_money_cant_be_computed_with_is_refused(profile: ProfileRow) -> None:
    """Infinite and absurd values are an error of that account, not an amount."""
    assert price_of(profile, DEFAULT) == TOO_LARGE


def test_a_million_is_the_largest_price_multiplier_and_product() -> None:
    """What is just as large can be computed with, and counts as it is."""
    most = Decimal(1_000_000)
    assert priced(ProfileRow(None, 1e6)).per_byte == most
    assert priced(ProfileRow(None, 1e-9, 1e3, 1e3)).multiplier == most
    paid = priced(ProfileRow(None, 1.0, 1.0, 1.0, 1e6, 1e6))
    assert {paid.peak_multiplier, paid.offpeak_multiplier} == {most}
    together = priced(ProfileRow(None, 1e3, 1e2, 1e1, 0.5, 1.0))
    assert together.per_byte * together.multiplier == most
    assert price_of(NO_PROFILE, PriceList(Decimal("1000000.000000001"))) == TOO_LARGE


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
