"""Receivers that are down, flapping, slow or wrong: real sockets for the calls, virtual time for the retries."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest
from standardwebhooks import Webhook

from schemas.records import Delivery
from tests.support.receiver import Receiver
from tests.support.webhook_bench import SECRET, WebhookBench

TEN_MINUTES_MS = 600_000


async def test_a_receiver_that_is_down_for_ten_minutes_gets_all_signed_and_without_a_herd(
    bench: WebhookBench, receiver: Receiver
) -> None:
    receiver.down = True
    begun = [bench.new(f"{receiver.root}/200") for _ in range(200)]
    began_ms = bench.now_ms
    await asyncio.gather(*(bench.worker.attempt(each) for each in begun))
    await bench.run(until_ms=began_ms + TEN_MINUTES_MS)
    assert receiver.broken_off < 150, "the host was probed and not hammered"
    receiver.down = False
    await bench.all_delivered(begun)
    assert bench.now_ms - began_ms < 8 * 3_600_000
    for each in begun:
        [call] = receiver.calls[each["task_id"]]
        stamp = datetime.fromtimestamp(int(call.headers["webhook-timestamp"]), UTC)
        is_subscribed = Webhook(SECRET).sign(each["id"], stamp, call.body.decode())
        assert call.headers["webhook-signature"] == is_subscribed
        assert call.headers["webhook-id"] == each["id"]


@pytest.mark.parametrize(
    "path", ["500-then-reset-then-429-then-200", "nonsense-then-503-then-202", "lie", "busy-then-200"]
)
async def test_flapping_and_lying_receivers_get_all(
    bench: WebhookBench, receiver: Receiver, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "dispatcher.webhooks.http_client.BODY_TIMEOUT_S", 0.05
    )  # the timeout of a body that does not come
    begun = [bench.new(f"{receiver.root}/{path}") for _ in range(8)]
    await asyncio.gather(*(bench.worker.attempt(each) for each in begun))
    await bench.all_delivered(begun)
    assert {len(receiver.got[each["task_id"]]) for each in begun} == {path.count("-then-") + 1}


async def test_a_receiver_that_hangs_is_called_again(receiver: Receiver) -> None:
    bench = WebhookBench(timeout_s=0.5)
    begun = [bench.new(f"{receiver.root}/hang-then-200") for _ in range(8)]
    await asyncio.gather(*(bench.worker.attempt(each) for each in begun))
    await bench.all_delivered(begun)
    for each in begun:
        *failed, last = bench.rows[each["task_id"]]["attempts"]
        assert last["status_code"] == 200
        # One failure, unless the machine is paused during a call.
        assert {attempt["reason"] for attempt in failed} == {"the receiver did not answer in time"}
        assert 2 <= len(receiver.got[each["task_id"]]) <= len(failed) + 1
    await bench.client.close()


async def test_all_retries_are_made_and_then_there_is_a_dead_letter(bench: WebhookBench, receiver: Receiver) -> None:
    lost = bench.new(f"{receiver.root}/500")
    began_ms = bench.now_ms
    await bench.worker.attempt(lost)
    await bench.run()
    row = bench.rows[lost["task_id"]]
    assert (row["state"], row["made"], row["due_ms"]) == ("failed", 10, None)
    assert bench.dead_letters == [lost["task_id"].encode()]
    hours = (bench.now_ms - began_ms) / 3_600_000
    assert 75 < hours < 84
    waits = [
        after["at_ms"] - before["at_ms"] for before, after in zip(row["attempts"], row["attempts"][1:], strict=False)
    ]
    for wait, delay_s in zip(waits, bench.settings.webhooks.retry_delays, strict=True):
        assert delay_s * 1000 <= wait <= delay_s * 1100 + 1_000


@pytest.mark.parametrize("status", [302, 401, 404, 409, 425])
async def test_a_receiver_behind_a_login_page_for_an_hour_loses_nothing(
    bench: WebhookBench, receiver: Receiver, status: int
) -> None:
    held = bench.new(f"{receiver.root}/{'-then-'.join([str(status)] * 4)}-then-200")
    began_ms = bench.now_ms
    await bench.worker.attempt(held)
    await bench.run()
    row = bench.rows[held["task_id"]]
    assert row["state"] == "delivered"
    assert [attempt["status_code"] for attempt in row["attempts"]] == [status] * 4 + [200]
    assert bench.now_ms - began_ms > 3_600_000
    assert bench.dead_letters == []
    assert not len(bench.disabled), "only a 410 switches a URL off"


async def test_what_failed_together_does_not_come_back_together(bench: WebhookBench, receiver: Receiver) -> None:
    begun = [bench.new(f"{receiver.root}/500-then-200") for _ in range(50)]
    await asyncio.gather(*(bench.worker.attempt(each) for each in begun))
    due = sorted(each["due_ms"] or 0 for each in bench.waiting)
    assert due[-1] - due[0] > 300
    assert len(set(due)) > 30


async def test_a_host_that_stays_away_is_given_up_in_the_end(receiver: Receiver) -> None:
    bench = WebhookBench(retry_delays=[1, 2])
    receiver.down = True
    begun = [bench.new(f"{receiver.root}/200") for _ in range(60)]
    await asyncio.gather(*(bench.worker.attempt(each) for each in begun))
    await bench.run()
    assert {bench.rows[each["task_id"]]["state"] for each in begun} == {"failed"}
    assert len(bench.dead_letters) == len(begun)
    await bench.client.close()


async def test_a_410_ends_what_waits_for_the_same_url_of_the_same_tenant(
    bench: WebhookBench, receiver: Receiver
) -> None:
    url = f"{receiver.root}/500-then-410"
    waits, other = bench.new(url, owner="a"), bench.new(url, owner="b")
    await asyncio.gather(bench.worker.attempt(waits), bench.worker.attempt(other))
    gone = bench.new(f"{receiver.root}/410", owner="a")
    same = bench.new(f"{receiver.root}/410", owner="a")
    await bench.worker.attempt(gone)
    await bench.worker.attempt(same)
    assert [bench.rows[each["task_id"]]["state"] for each in (gone, same)] == ["disabled"] * 2
    assert receiver.got[same["task_id"]] == []
    await bench.run()
    assert [len(receiver.got[each["task_id"]]) for each in (waits, other)] == [2, 2]
    bench.now_ms += bench.settings.webhooks.gone_ttl_s * 1000 + 1
    again = bench.new(f"{receiver.root}/410", owner="a")
    await bench.worker.attempt(again)
    assert len(receiver.got[again["task_id"]]) == 1, "the mark has an end"


async def test_progress_is_not_notified_late(bench: WebhookBench, receiver: Receiver) -> None:
    news: Delivery = {**bench.new(f"{receiver.root}/500"), "event": "progress"}
    await bench.worker.attempt(news)
    assert bench.waiting == []
    assert bench.dead_letters == []
    assert bench.rows[news["task_id"]]["state"] == "failed"
