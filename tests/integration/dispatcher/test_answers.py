"""What upstreams answer, well and badly, and what the dispatcher makes of it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from bench.simulator import Simulator
from core.settings import Settings
from schemas.records import Mode
from tests.support.dispatcher_probe import DispatcherProbe, dispatching
from tests.support.waiting import eventually_async


async def test_a_stream_becomes_numbered_chunks(probe: DispatcherProbe, settings: Settings) -> None:
    async with dispatching(settings):
        task_id = await probe.submit(mode="streaming", sim={"tokens": 40, "token_ms": 5})
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


async def test_the_claim_of_a_stream_says_when_tokens_flow(probe: DispatcherProbe, settings: Settings) -> None:
    async with dispatching(settings):
        task_id = await probe.submit(mode="streaming", sim={"latency_ms": 1200, "tokens": 40, "token_ms": 60})
        await probe.ended(task_id)
    claims = [event["streamed"] for event in probe.events[task_id] if event["kind"] == "claimed"]
    assert claims == [False, True]


BAD_ANSWERS: list[tuple[dict[str, Any], int, str | None, bool]] = [
    ({"status": 400}, 400, "upstream_error", False),
    ({"status": 500}, 500, "upstream_error", True),
    ({"fault": "reset"}, 502, "upstream_cut", True),
    ({"fault": "reset_after_headers"}, 502, "upstream_cut", True),
    ({"fault": "half_body"}, 502, "upstream_cut", True),
    ({"fault": "redirect"}, 502, "upstream_redirect", False),
    ({"fault": "invalid_json"}, 502, "upstream_malformed", False),
    ({"fault": "non_utf8"}, 502, "upstream_malformed", False),
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
    ({"fault": "non_utf8", "after": 1}, 502, "upstream_malformed", False),
    ({"fault": "invalid_json"}, 502, "upstream_malformed", False),
    ({"fault": "endless"}, 502, "answer_too_large", False),
    ({"status": 503}, 503, "upstream_error", True),
    ({"status": 404}, 404, "upstream_error", False),
]


@pytest.mark.parametrize(("mode", "table"), [("callback", BAD_ANSWERS), ("streaming", BAD_STREAMS)])
async def test_how_a_bad_answer_ends(
    probe: DispatcherProbe, settings: Settings, mode: Mode, table: list[tuple[dict[str, Any], int, str | None, bool]]
) -> None:
    small = settings.model_copy(
        update={"dispatcher": settings.dispatcher.model_copy(update={"max_answer_bytes": 100_000})}
    )
    async with dispatching(small):
        ids = [await probe.submit(mode=mode, sim=sim_, timeout_s=6) for sim_, *_ in table]
        for task_id, (sim_, *expected) in zip(ids, table, strict=True):
            outcome = await probe.outcome(task_id)
            assert [outcome["status_code"], outcome["error_code"], outcome["retriable"]] == expected, sim_
            kept = outcome["error_code"] in (None, "upstream_error") or outcome["chunks"] > 0
            assert (outcome["body"] is not None) == kept, sim_


async def test_a_large_answer_goes_to_the_object_store(
    probe: DispatcherProbe, settings: Settings, tmp_path: Path
) -> None:
    async with dispatching(settings):
        outcome = await probe.outcome(await probe.submit(sim={"size": 700_000}))
    blob = outcome["body_ref"]
    assert blob is not None
    assert outcome["body"] is None
    assert (tmp_path / "objects" / blob["uri"]).stat().st_size == blob["size"] == 700_000


async def test_a_deadline_closes_the_call(probe: DispatcherProbe, settings: Settings, sim: Simulator) -> None:
    async with dispatching(settings):
        running = await probe.submit(sim={"fault": "hang"}, timeout_s=6)
        late = await probe.submit(timeout_s=-1)
        for task_id in (running, late):
            outcome = await probe.outcome(task_id)
            assert (outcome["status_code"], outcome["error_code"], outcome["retriable"]) == (408, "timeout", False)
        await eventually_async(lambda: sim.stats.disconnects == 1, what="the end of the connection")
    assert sim.stats.arrivals == 1


async def test_a_call_ends_at_its_run_timeout_and_may_be_tried_again(
    probe: DispatcherProbe, settings: Settings, sim: Simulator
) -> None:
    async with dispatching(settings):
        began = time.monotonic()
        outcome = await probe.outcome(await probe.submit(sim={"fault": "hang"}, run_timeout_ms=600))
        assert time.monotonic() - began < 10
        assert (outcome["status_code"], outcome["error_code"], outcome["retriable"]) == (408, "timeout", True)
        assert "run_timeout" in (outcome["error_message"] or "")
        await eventually_async(lambda: sim.stats.disconnects == 1, what="the end of the connection")
        quick = await probe.outcome(await probe.submit(run_timeout_ms=5_000))
        assert quick["status_code"] == 200


async def test_a_busy_upstream_is_left_alone_for_as_long_as_it_asks(
    probe: DispatcherProbe, settings: Settings, sim: Simulator
) -> None:
    async with dispatching(settings):
        first = await probe.outcome(await probe.submit(sim={"status": 429, "retry_after": 1.5}))
        assert (first["retriable"], first["retry_after_ms"]) == (True, 1500)
        began = time.monotonic()
        second = await probe.ended(await probe.submit())
        assert time.monotonic() - began > 1.2
    assert second["outcome"] is not None
    assert second["outcome"]["status_code"] == 200


async def test_work_is_held_while_no_upstream_answers(
    probe: DispatcherProbe, settings: Settings, sim: Simulator
) -> None:
    await sim.close()
    async with dispatching(settings):
        await eventually_async(lambda: probe.alive, what="a heartbeat")
        task_id = await probe.submit()
        late = await probe.submit(timeout_s=1)
        assert probe.alive[-1]["upstreams_up"] == 0
        await sim.start()
        event = await probe.ended(task_id)
        assert event["outcome"] is not None
        assert event["outcome"]["status_code"] == 200
        assert event["attempt"] == 1
        assert (await probe.ended(late))["outcome"] is not None
        await sim.close()
        again = await probe.submit()
        await eventually_async(lambda: probe.alive[-1]["upstreams_up"] == 0, what="the news of the outage")
        await sim.start()
        assert (await probe.ended(again))["attempt"] == 1
    assert probe.kinds(again)[-1] == "finished"
