"""Which account and which minutes are meant."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from billing_cli.cli.printing import text_of
from billing_cli.errors import UsageError
from billing_cli.features.explain.job import explain
from billing_cli.features.explain.text import explain_parts
from billing_cli.simulator.accounts import save_users
from tests.support.story import MINUTE, START

if TYPE_CHECKING:
    from billing_cli.features.explain.explanation import Explanation
    from billing_cli.simulator.traffic import User
    from tests.support.story import Story


def told(story: Story, user: User, **options: Any) -> Explanation:
    """Return the story of a user's charges."""
    return explain(story.context(), user.uuid, **options)


@pytest.fixture
def two_hours(story: Story) -> tuple[Story, User]:
    """Return a story of two hours in which every minute has usage, and its user."""
    user = story.add_user()
    stream = story.add_node("jp-1").add_stream(user.uuid, "xhttp")
    story.minute()
    for _ in range(120):
        story.minute((stream, 1, 1))
    story.collect()
    return story, user


def minutes_told(explanation: Explanation) -> list[float]:
    """Return the minutes that are told, counted from the start."""
    return [(minute.minute - START) / MINUTE for minute in explanation.minutes]


def test_the_last_hour_with_usage_is_told_by_default(two_hours: tuple[Story, User]) -> None:
    """However long ago that was."""
    story, user = two_hours

    explanation = told(story, user)

    assert minutes_told(explanation) == list(range(61, 121))
    assert explanation.next_minute is None


def test_any_time_within_a_minute_names_it(two_hours: tuple[Story, User]) -> None:
    """Seconds do not matter."""
    story, user = two_hours

    assert minutes_told(told(story, user, minute=START + 7.9 * MINUTE)) == [7]


def test_a_range_is_half_open_and_cut_where_it_is_too_long(two_hours: tuple[Story, User]) -> None:
    """What is left out is said, with where to go on."""
    story, user = two_hours

    inside = told(story, user, since=START + 10.5 * MINUTE, until=START + 13 * MINUTE)
    cut = told(story, user, since=START, limit=5)
    before = told(story, user, until=START + 30 * MINUTE)

    assert minutes_told(inside) == [10, 11, 12]
    assert minutes_told(cut) == [1, 2, 3, 4, 5]
    assert (cut.total_minutes, cut.next_minute) == (120, START + 6 * MINUTE)
    assert "115 more minutes to follow: --since 2026-04-08T12:06:00Z" in text_of(explain_parts(cut))
    assert minutes_told(before) == list(range(1, 30))


def test_nothing_on_record_is_said_and_no_error(two_hours: tuple[Story, User]) -> None:
    """Neither for a quiet minute nor for an account that never moved a byte."""
    story, user = two_hours

    quiet = text_of(explain_parts(told(story, user, minute=START - MINUTE)))
    new = text_of(explain_parts(told(story, story.add_user())))

    assert "nothing is on record from 2026-04-08T11:59:00Z before 2026-04-08T12:00:00Z" in quiet
    assert "nothing is on record" in new


def test_an_account_is_found_by_every_uuid_that_it_has_or_had(story: Story) -> None:
    """Its own, its proxy uuid, a former proxy uuid; and after it was deleted, its own still."""
    user = story.add_user()
    stream = story.add_node("jp-1").add_stream(user.proxy_uuid, "xhttp")
    former = user.proxy_uuid
    story.minute()
    story.minute((stream, 1, 1))
    story.collect()
    story.fleet.renew_proxy(user)
    save_users(story.connection, [user])

    for uuid, known_by in (
        (user.uuid, "account uuid"),
        (user.proxy_uuid, "proxy uuid"),
        (former, "former proxy uuid"),
    ):
        explanation = explain(story.context(), uuid)
        assert (explanation.account_uuid, explanation.known_by) == (user.uuid, known_by)
        assert len(explanation.minutes) == 1

    story.connection.execute("DELETE FROM public.users WHERE uuid = %s", (user.uuid,))
    deleted = told(story, user)
    text = text_of(explain_parts(deleted))
    assert not deleted.exists
    assert "which is deleted" in text
    assert "the ledger has no such row any more" in text
    assert "bucket: there is none any more" in text


def test_a_proxy_uuid_of_two_accounts_names_neither(story: Story) -> None:
    """The error names both."""
    users = [story.add_user(), story.add_user()]
    users[1].proxy_uuid = users[0].proxy_uuid
    save_users(story.connection, users)

    with pytest.raises(UsageError, match="of several accounts") as raised:
        explain(story.context(), users[0].proxy_uuid)

    assert all(user.uuid in str(raised.value) for user in users)
