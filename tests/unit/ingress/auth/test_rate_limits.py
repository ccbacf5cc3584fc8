"""What one key may ask for, by a clock that the test moves."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import pytest

from core.errors import RateLimited
from ingress.auth.key_entry import SCOPES, KeyQuota
from ingress.auth.keys import Caller
from ingress.auth.rate_limits import SCOPE_KEY, KeyLimits
from tests.support.clocks import SecondClock


def caller(name: str = "acme/a", *, per_minute: int = 0, concurrency: int = 0) -> Caller:
    return Caller("acme", SCOPES, name, KeyQuota(per_minute, concurrency))


def submit(limits: KeyLimits, who: Caller) -> dict[str, str]:
    """Submit, and return the headers of the answer."""
    scope: dict[str, Any] = {}
    limits.submit(who, scope)
    return {name.decode(): value.decode() for name, value in scope[SCOPE_KEY].headers()} if scope else {}


def test_a_minutes_worth_at_once_and_then_evenly() -> None:
    clock = SecondClock()
    limits, who = KeyLimits(clock=clock), caller(per_minute=3)
    assert [submit(limits, who)["x-ratelimit-remaining-requests"] for _ in range(3)] == ["2", "1", "0"]
    with pytest.raises(RateLimited, match="3 requests per minute") as refused:
        submit(limits, who)
    assert refused.value.retry_after_s == pytest.approx(20)
    clock.now_s += 19
    with pytest.raises(RateLimited) as refused:
        submit(limits, who)
    assert refused.value.retry_after_s == pytest.approx(1)
    clock.now_s += 1
    submit(limits, who)
    clock.now_s += 3600
    assert submit(limits, who) == {
        "ratelimit-policy": '"requests";q=3;w=60',
        "ratelimit": '"requests";r=2;t=20',
        "x-ratelimit-limit-requests": "3",
        "x-ratelimit-remaining-requests": "2",
        "x-ratelimit-reset-requests": "20s",
    }


def test_a_refusal_tells_what_is_left() -> None:
    limits, who = KeyLimits(clock=SecondClock()), caller(per_minute=1)
    submit(limits, who)
    scope: dict[str, Any] = {}
    with pytest.raises(RateLimited):
        limits.submit(who, scope)
    assert (scope[SCOPE_KEY].remaining, scope[SCOPE_KEY].limit) == (0, 1)


def test_keys_have_their_own_count_and_a_new_limit_counts_at_once() -> None:
    limits = KeyLimits(clock=SecondClock())
    submit(limits, caller("acme/a", per_minute=1))
    submit(limits, caller("acme/b", per_minute=1))
    submit(limits, caller("acme/a", per_minute=2))
    assert submit(limits, caller("acme/a")) == {}


def test_held_requests_are_counted_until_they_end() -> None:
    limits, who = KeyLimits(), caller(concurrency=2)
    with ExitStack() as held:
        held.enter_context(limits.holding(who))
        with pytest.raises(RuntimeError), limits.holding(who):
            raise RuntimeError
        held.enter_context(limits.holding(who))
        limits.check_room(caller("acme/other", concurrency=2))
        with pytest.raises(RateLimited, match="hold 2 requests at once"):
            limits.check_room(who)
        with pytest.raises(RateLimited), limits.holding(who):
            pytest.fail("it was let in")
    limits.check_room(who)
