"""What upstreams answer, well and badly, and what the dispatcher makes of it."""

from __future__ import annotations

from typing import Any

import pytest

from schemas.records import Mode
from tests.support.dispatcher_probe import DispatcherProbe
from tests.support.held_upstream import HELD, HeldUpstream
from tests.support.waiting import eventually_async

pytestmark = pytest.mark.usefixtures("dispatcher")


@pytest.fixture(scope="module")
def changes(changes: dict[str, object]) -> dict[str, object]:
    """Allow short answers only."""
    return {**changes, "dispatcher__max_answer_bytes": 100_000}


async def test_a_stream_becomes_numbered_chunks(probe: DispatcherProbe, sim: HeldUpstream) -> None:
    task_id = await probe.submit(mode="streaming", sim={**HELD, "tokens": 40})
    await eventually_async(lambda: sim.stats.current == 1, what="the call")
    sim.token(task_id)
    await eventually_async(lambda: probe.chunks[task_id], what="the first chunk")
    sim.answer(task_id)
    event = await probe.ended(task_id)
    outcome = event["outcome"]
    assert outcome is not None
    await eventually_async(lambda: len(probe.chunks[task_id]) == outcome["chunks"], what="all chunks")
    chunks = probe.chunks[task_id]
    assert [chunk["seq"] for chunk in chunks] == list(range(len(chunks)))
    assert {(chunk["worker"], chunk["attempt"]) for chunk in chunks} == {(event["worker"], 1)}
    frames = [frame for chunk in chunks for frame in chunk["frames"]]
    assert 1 < len(chunks) < len(frames), "tokens are gathered in windows"
    text = b"".join(b"data: %b\n\n" % frame for frame in frames) + b"data: [DONE]\n\n"
    assert outcome["body"] == text
    assert outcome["started_ms"] <= (outcome["first_token_ms"] or 0) <= event["at_ms"]
    assert outcome["content_type"].startswith("text/event-stream")
    assert outcome["error_code"] is None


async def test_the_claim_of_a_stream_says_when_tokens_flow(probe: DispatcherProbe, sim: HeldUpstream) -> None:
    def claims() -> list[bool]:
        return [event["streamed"] for event in probe.events[task_id] if event["kind"] == "claimed"]

    task_id = await probe.submit(mode="streaming", sim={**HELD, "tokens": 40})
    await eventually_async(lambda: claims() == [False], what="the claim")
    sim.token(task_id)
    await eventually_async(lambda: claims() == [False, True], what="the claim of the tokens")
    sim.answer(task_id)
    await probe.ended(task_id)
    assert claims() == [False, True]


BAD_ANSWERS: list[tuple[dict[str, Any], int, str | None, bool]] = [
    ({"status": 400}, 400, "upstream_error", False),
    ({"status": 500}, 500, "upstream_error", True),
    ({"fault": "reset"}, 502, "upstream_cut", True),
    ({"fault": "reset_after_headers"}, 502, "upstream_cut", True),
    ({"fault": "half_body"}, 502, "upstream_cut", True),
    ({"fault": "redirect"}, 502, "upstream_redirect", False),
    ({"fault": "invalid_json"}, 502, "upstream_malformed", False),
    ({"fault": "non_utf8"}, 200, None, False),
    ({"fault": "length_long"}, 408, "timeout", False),
    ({"fault": "slow_loris"}, 408, "timeout", False),
    ({"fault": "endless"}, 502, "answer_too_large", False),
    ({"size": 2_000_000}, 502, "answer_too_large", False),
]
BAD_STREAMS: list[tuple[dict[str, Any], int, str | None, bool]] = [
    ({"fault": "cut", "after": 2}, 502, "upstream_cut", False),
    ({"fault": "cut", "after": 0}, 502, "upstream_cut", True),
    ({"fault": "reset_after_headers"}, 502, "upstream_cut", True),
    ({"fault": "error_frame", "after": 1}, 502, "upstream_error", False),
    ({"fault": "no_done"}, 200, None, False),
    ({"fault": "non_utf8", "after": 1}, 200, None, False),
    ({"fault": "invalid_json"}, 502, "upstream_malformed", False),
    ({"fault": "endless"}, 502, "answer_too_large", False),
    ({"status": 503}, 503, "upstream_error", True),
    ({"status": 404}, 404, "upstream_error", False),
]


ENDLESS = frozenset(("length_long", "slow_loris"))
"""They end by the deadline of their task."""


@pytest.mark.parametrize(("mode", "table"), [("callback", BAD_ANSWERS), ("streaming", BAD_STREAMS)])
async def test_how_a_bad_answer_ends(
    probe: DispatcherProbe, mode: Mode, table: list[tuple[dict[str, Any], int, str | None, bool]]
) -> None:
    ids = [
        await probe.submit(mode=mode, sim=sim, timeout_s=2 if sim.get("fault") in ENDLESS else 60) for sim, *_ in table
    ]
    for task_id, (sim, *expected) in zip(ids, table, strict=True):
        outcome = await probe.outcome(task_id)
        assert [outcome["status_code"], outcome["error_code"], outcome["retriable"]] == expected, sim
        stored = outcome["error_code"] in (None, "upstream_error") or outcome["chunks"] > 0
        assert (outcome["body"] is not None) == stored, sim


async def test_a_deadline_closes_the_call(probe: DispatcherProbe, sim: HeldUpstream) -> None:
    late = await probe.submit(timeout_s=-1)
    tasks = [late]
    for timeout_s in (2, 10, 40):
        tasks.append(await probe.submit(sim=HELD, timeout_s=timeout_s))
        await probe.ended(tasks[-1])
        if sim.stats.arrivals:
            break  # its call was made: the machine did not stand still until its deadline
    for task_id in tasks:
        outcome = await probe.outcome(task_id)
        assert (outcome["status_code"], outcome["error_code"], outcome["retriable"]) == (408, "timeout", False)
    await eventually_async(lambda: sim.stats.disconnects == 1, what="the end of the connection")
    assert sim.stats.arrivals == 1
    assert late not in sim.stats.keys


async def test_a_call_ends_at_its_run_timeout_and_may_be_tried_again(probe: DispatcherProbe, sim: HeldUpstream) -> None:
    outcome = await probe.outcome(await probe.submit(sim=HELD, timeout_s=3_600, run_timeout_ms=600))
    assert (outcome["status_code"], outcome["error_code"], outcome["retriable"]) == (408, "timeout", True)
    assert "run_timeout" in (outcome["error_message"] or "")
    await eventually_async(lambda: sim.stats.disconnects == 1, what="the end of the connection")
    quick = await probe.outcome(await probe.submit(run_timeout_ms=60_000))
    assert quick["status_code"] == 200


async def test_a_busy_upstream_is_left_alone_for_as_long_as_it_asks(probe: DispatcherProbe, sim: HeldUpstream) -> None:
    busy = await probe.submit(sim={"status": 429, "retry_after": 1.5})
    first = await probe.outcome(busy)
    assert (first["retriable"], first["retry_after_ms"]) == (True, 1500)
    later = await probe.submit()
    second = await probe.outcome(later)
    [busy_ms], [later_ms] = (sim.stats.keys[one].arrival_ms for one in (busy, later))
    assert later_ms - busy_ms >= 1_490  # read from a clock of milliseconds
    assert second["status_code"] == 200
