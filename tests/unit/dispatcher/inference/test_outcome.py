"""Which failures can be retried."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.inference.outcome import Failure, failure_outcome, response_outcome
from schemas.codec import EVENT
from schemas.events import event


@pytest.mark.parametrize("status", [200, 201, 204])
def test_a_success_is_completed(status: int) -> None:
    outcome = response_outcome(status, body=b"{}", content_type="application/json", upstream="u", started_ms=1)
    assert (outcome["error_code"], outcome["retriable"], outcome["status_code"]) == (None, False, status)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 408, 409, 413, 422, 429, 500, 501, 502, 503, 504, 505])
def test_an_error_keeps_status_and_body(status: int) -> None:
    outcome = response_outcome(
        status, body=b"no", content_type="text/plain", upstream="u", started_ms=1, retry_after=500
    )
    assert (outcome["error_code"], outcome["status_code"], outcome["body"]) == ("upstream_error", status, b"no")
    assert outcome["retriable"] is (status in {408, 429, 500, 502, 503, 504})
    assert outcome["retry_after_ms"] == 500


@pytest.mark.parametrize(
    ("failure", "status", "retriable"),
    [
        (Failure.UNREACHABLE, 503, True),
        (Failure.CUT, 502, True),
        (Failure.MALFORMED, 502, False),
        (Failure.NO_JSON, 502, False),
        (Failure.REDIRECT, 502, False),
        (Failure.TOO_LARGE, 502, False),
        (Failure.REPORTED, 502, True),
        (Failure.EMPTY, 502, True),
        (Failure.TIMEOUT, 408, False),
        (Failure.RUN_TIMEOUT, 408, True),
        (Failure.BODY_LOST, 500, False),
        (Failure.STORAGE, 503, True),
        (Failure.STOPPED, 503, True),
        (Failure.INTERNAL, 500, False),
    ],
)
def test_failures(failure: Failure, status: int, retriable: bool) -> None:
    outcome = failure_outcome(failure, started_ms=1, detail="x" * 1000)
    assert (outcome["status_code"], outcome["retriable"]) == (status, retriable)
    assert len(outcome["error_message"] or "") <= 500


def test_every_failure_is_in_the_table() -> None:
    assert len(Failure) == 14


@given(st.text(), st.sampled_from(Failure))
def test_whatever_the_detail_it_can_be_written(detail: str, failure: Failure) -> None:
    outcome = failure_outcome(failure, started_ms=1, detail=detail + "\udc80")
    assert EVENT.decode(EVENT.encode(event("finished", at_ms=1, outcome=outcome)))["outcome"] == outcome
