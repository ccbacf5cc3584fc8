"""Retry-After is a number of seconds or an HTTP date; whatever else a server sends is ignored."""

from __future__ import annotations

from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.retry_after import MAX_RETRY_AFTER_S, retry_after_s


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        ("", None),
        ("0", 0),
        ("2", 2),
        ("120", 120),
        ("0.25", 0.25),
        (" 3 ", 3),
        ("-1", 0),
        ("soon", None),
        ("٣", None),
        ("nan", None),
        ("inf", None),
        ("99999999999999999999", MAX_RETRY_AFTER_S),
        ("1e308", MAX_RETRY_AFTER_S),
        ("1e400", None),
        ("9" * 400, None),
        ("Fri, 31 Dec 9999 23:59:59 GMT", MAX_RETRY_AFTER_S),
        ("Fri, 31 Dec 9999 23:59:59 -2359", MAX_RETRY_AFTER_S),
        ("Mon, 01 Jan 99999 00:00:00 GMT", None),
        ("Mon, 99 Jan 2026 99:99:99 GMT", None),
        ("Fri, 99 Foo 2026 99:99:99 GMT", None),
        ("Mon, 01 Jan 2026 00:00:00 +999999999999", None),
        (formatdate(1_090, usegmt=True), 90),
        (formatdate(0, usegmt=True), 0),
    ],
)
def test_seconds_or_a_date(value: str | None, expected: float | None) -> None:
    assert retry_after_s(value, now_ms=1_000_000) == expected


@given(st.text(max_size=60))
def test_any_text_is_parsed_or_ignored(value: str) -> None:
    wait_s = retry_after_s(value, now_ms=10_000)
    assert wait_s is None or 0 <= wait_s <= MAX_RETRY_AFTER_S
