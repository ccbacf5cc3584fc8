"""What a pull worker brings is counted like an upstream's answer."""

from __future__ import annotations

from core.usage import usage_of
from ingress.pull.claims import lost_body, reported

COUNTED = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}


def test_the_tokens_of_a_worker_s_answer_are_kept() -> None:
    body = b'{"choices":[],"usage":{"input_tokens":3,"output_tokens":4}}'
    outcome = reported(
        200, body=body, body_ref=None, content_type="application/json", started_ms=1, usage=usage_of(body)
    )
    assert outcome["usage"] == COUNTED


def test_what_nobody_counted_has_no_usage() -> None:
    assert lost_body(started_ms=1)["usage"] is None
