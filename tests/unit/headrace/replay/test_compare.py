"""When two answers say the same."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from headrace.replay.compare import Pair, ReplayedAnswer, answer_of, comparable_body, grouped, percentile, verdict_of
from tests.support.results import result_of

JSON = "application/json"
SSE = "text/event-stream; charset=utf-8"


def chat(text: str, **more: Any) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return orjson.dumps({"choices": [choice], **more})


def stream(*deltas: dict[str, Any], number: int = 1) -> bytes:
    frames = [orjson.dumps({"id": f"c-{number}", "choices": [{"index": 0, "delta": delta}]}) for delta in deltas]
    return b"".join(b"data: " + frame + b"\n\n" for frame in (*frames, b"[DONE]"))


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (chat("a", id="1", created=1, usage={"x": 1}), chat("a", id="2", created=2, model="n"), True),
        (chat("a"), chat("b"), False),
        (b'{"a":1,"b":[{"id":1,"c":2}]}', b'{"b":[{"id":9,"c":2}],"a":1}', True),
        (b'{"a":1}', b'{"a":2}', False),
        (b"[1,2]", b"[2,1]", False),
        (b"no json", b"no json", True),
        (b"no json", b"no  json", False),
        (b"", b"", True),
    ],
)
def test_json(one: bytes, other: bytes, same: bool) -> None:
    assert (comparable_body(one, JSON) == comparable_body(other, JSON)) is same


def test_a_stream_is_what_its_pieces_say_together() -> None:
    whole = comparable_body(stream({"role": "assistant", "content": "river mill"}), SSE)
    cut = stream({"role": "assistant"}, {"content": "river "}, {"content": "mi"}, {"content": "ll"}, number=2)
    assert comparable_body(cut, SSE) == whole
    assert comparable_body(stream({"role": "assistant", "content": "river"}), SSE) != whole
    assert (
        comparable_body(b"data: broken\n\n", SSE)
        == comparable_body(b"data: broken\n\n", SSE)
        != comparable_body(b"data: br\n\n", SSE)
    )


def test_a_stream_says_the_same_as_the_answer_in_one_piece() -> None:
    whole = chat("river mill", id="1", logprobs=None)
    frames = [
        {"choices": [{"index": 0, "delta": {"role": "assistant", "content": "river "}, "finish_reason": None}]},
        {"choices": [{"index": 0, "delta": {"content": "mill"}, "finish_reason": None}]},
        {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
        {"choices": [], "usage": {"total_tokens": 3}},
    ]
    cut = b"".join(b"data: " + orjson.dumps(frame) + b"\n\n" for frame in frames)
    assert comparable_body(cut, SSE) == comparable_body(whole, JSON)


def test_calls_of_tools_are_put_together_by_their_index() -> None:
    def call(index: int, arguments: str, **more: Any) -> dict[str, Any]:
        return {"tool_calls": [{"index": index, "function": {"arguments": arguments}, **more}]}

    cut = stream(call(0, '{"a"', id="x"), call(1, "{}"), call(0, ":1}"))
    whole = stream(call(0, '{"a":1}', id="y"), call(1, "{}"))
    assert comparable_body(cut, SSE) == comparable_body(whole, SSE)
    assert comparable_body(stream(call(0, '{"a":2}'), call(1, "{}")), SSE) != comparable_body(whole, SSE)


def test_frames_of_other_streams_are_compared_in_order() -> None:
    assert comparable_body(b'data: {"t":1}\n\ndata: {"t":2}\n\n', SSE) != comparable_body(
        b'data: {"t":2}\n\ndata: {"t":1}\n\n', SSE
    )


def answer(body: bytes | None = b'{"a":1}', **changes: Any) -> ReplayedAnswer:
    return answer_of(result_of("TASK-1-0-B-260101000000-0000-000000", **changes), body, excerpt=True)


FAILED = {"state": "failed", "error_code": "upstream_error", "status_code": 500}


@pytest.mark.parametrize(
    ("original", "replay", "verdict"),
    [
        (answer(), answer(), "equal"),
        (answer(), answer(b'{"a":2}'), "changed"),
        (answer(), answer(None), "unpaired"),
        (answer(None), answer(None), "unpaired"),
        (answer(), answer(**FAILED), "failed"),
        (answer(**FAILED), answer(), "recovered"),
        (answer(b"x", **FAILED), answer(b"y", **FAILED), "equal"),
        (answer(**FAILED), answer(**{**FAILED, "error_code": "timeout"}), "changed"),
        (answer(**FAILED), answer(state="cancelled", error_code="cancelled"), "changed"),
        (None, answer(), "unpaired"),
    ],
)
def test_verdicts(original: ReplayedAnswer | None, replay: ReplayedAnswer, verdict: str) -> None:
    assert verdict_of(original, replay) == verdict


def test_the_figures_of_a_group() -> None:
    usage = {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8}
    first = answer(usage=usage, started_ms=1_000, finished_ms=1_100)
    second = answer(usage=usage, started_ms=1_000, finished_ms=1_050, model="n")
    pairs = [Pair("equal", first, second, "T")] * 3 + [Pair("unpaired", None, second, "U")]
    found = {key: group.as_json() for key, group in grouped(pairs).items()}
    assert found["chat", "m", "n"] == {
        "equal": 3,
        "changed": 0,
        "failed": 0,
        "recovered": 0,
        "unpaired": 0,
        "latency_p50_ms": [100, 50],
        "latency_p95_ms": [100, 50],
        "prompt_tokens": [9, 9],
        "completion_tokens": [15, 15],
    }
    assert found["chat", "n", "n"]["unpaired"] == 1
    assert found["chat", "n", "n"]["latency_p50_ms"] == [None, None]


def test_a_line_of_the_report() -> None:
    line = Pair("changed", answer(b"x" * 5_000), answer(None), "T").as_json()
    assert orjson.loads(orjson.dumps(line))["verdict"] == "changed"
    assert line["original"]["excerpt"] == "x" * 2_000
    assert line["replay"]["digest"] is None
    assert "excerpt" not in line["replay"]


def test_percentiles() -> None:
    assert percentile([], 0.5) is None
    assert [percentile(range(1, 101), part) for part in (0, 0.5, 0.95, 1)] == [1, 51, 96, 100]
