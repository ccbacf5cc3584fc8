"""What a callback URL may be: a corpus of hostile ones, and those that must pass."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.callback_url import OPEN, policy_of, problem
from tests.support.hostile_urls import ALWAYS, FINE, ODD_PORTS, PRIVATE

STRICT = policy_of(private=False, ports=())


def test_the_corpus_is_large() -> None:
    assert len({*ALWAYS, *PRIVATE, *ODD_PORTS}) == len([*ALWAYS, *PRIVATE, *ODD_PORTS]) > 150


@pytest.mark.parametrize("url", ALWAYS)
def test_refused_by_every_deployment(url: str) -> None:
    for allowed in (OPEN, STRICT):
        why = problem(url, allowed)
        assert why is not None
        assert len(why) < 200, "the URL itself, of whatever length, is not repeated"


@pytest.mark.parametrize("url", PRIVATE)
def test_refused_unless_private_addresses_are_allowed(url: str) -> None:
    assert "webhooks.allow_private" in (problem(url, STRICT) or "") or "four decimal" in (problem(url, STRICT) or "")
    assert problem(url, OPEN) is None


@pytest.mark.parametrize("url", ODD_PORTS)
def test_refused_unless_the_port_is_named(url: str) -> None:
    assert "webhooks.ports" in (problem(url, STRICT) or "")
    assert problem(url, policy_of(private=False, ports=[int(url.rpartition(":")[2].strip("/"))])) is None
    assert problem(url, OPEN) is None


@pytest.mark.parametrize("url", FINE)
def test_fine_everywhere(url: str) -> None:
    assert problem(url, STRICT) is None


@given(text=st.text() | st.text().map("http://".__add__))
def test_any_text_is_checked(text: str) -> None:
    found = problem(text, STRICT)
    assert found is None or found
    assert found is not None or text.lower().startswith("http")
