"""A manual resend ends the waiting earlier round of its delivery, and nothing else."""

from __future__ import annotations

from core.deliveries import resent
from dispatcher.webhooks import records
from dispatcher.webhooks.disabled_urls import ManualResends, is_manual
from schemas.codec import DELIVERY
from schemas.records import Delivery
from tests.support.receiver import Receiver
from tests.support.webhook_bench import WebhookBench


def resend(bench: WebhookBench, delivery: Delivery) -> Delivery:
    bench.now_ms += 1_000
    return resent(bench.rows[delivery["task_id"]], now_ms=bench.now_ms)


async def test_a_resend_ends_the_round_that_waits(bench: WebhookBench, receiver: Receiver) -> None:
    first = bench.new(f"{receiver.root}/503-then-200-then-404")
    await bench.worker.attempt(first)
    assert len(bench.waiting) == 1
    await bench.worker.attempt(resend(bench, first))
    await bench.run()
    assert len(receiver.got[first["task_id"]]) == 2, "what was delivered is not posted resent"
    assert bench.rows[first["task_id"]]["state"] == "delivered"
    assert (bench.waiting, bench.dead_letters) == ([], [])


async def test_the_later_round_has_its_own_retries_and_a_third_one_may_follow(
    bench: WebhookBench, receiver: Receiver
) -> None:
    first = bench.new(f"{receiver.root}/503-then-503-then-410-then-200")
    await bench.worker.attempt(first)
    await bench.worker.attempt(resend(bench, first))
    assert len(bench.waiting) == 2
    await bench.run()
    assert bench.rows[first["task_id"]]["state"] == "disabled"
    assert len(receiver.got[first["task_id"]]) == 3
    await bench.worker.attempt(resend(bench, first))
    assert bench.rows[first["task_id"]]["state"] == "delivered"


async def test_an_attempt_under_way_when_a_resend_comes_changes_its_row_no_more(
    bench: WebhookBench, receiver: Receiver
) -> None:
    first = bench.new(f"{receiver.root}/404")
    render = bench.of

    async def resend_meanwhile(delivery: Delivery, result: None) -> bytes:
        later = resent(first, now_ms=first["created_ms"] + 1)
        await bench.write_all([records.resend_mark(bench.settings, later, now_ms=bench.now_ms)])
        return await render(delivery, result)

    bench.of = resend_meanwhile  # type: ignore[method-assign,assignment]  # a hook at the moment of the attempt
    await bench.worker.attempt(first)
    assert len(receiver.got[first["task_id"]]) == 1
    assert (bench.rows, bench.dead_letters, bench.waiting) == ({}, [], [])


def test_when_in_doubt_it_is_posted(bench: WebhookBench) -> None:
    rounds, first = ManualResends(at_least=1), bench.new("http://there/x")
    later = resent(first, now_ms=first["created_ms"] + 5)
    assert not rounds.is_superseded(first), "no mark is known"
    rounds.apply(later)
    assert rounds.is_superseded(first)
    assert not rounds.is_superseded(later)
    waits: Delivery = {**later, "due_ms": later["created_ms"] + 9, "step": 1}
    assert not rounds.is_superseded(waits), "the round of the mark itself"
    behind = resent(first, now_ms=first["created_ms"] + 3)
    assert is_manual(behind)
    assert not rounds.is_superseded(behind), "asked for by a clock that goes wrong, or a letter that was sent back"
    rounds.apply(behind)
    assert not rounds.is_superseded({**behind, "due_ms": behind["created_ms"] + 9})
    assert not rounds.is_superseded({**first, "id": f"{first['task_id']}-start"}), "other news of the same task"
    for _ in range(2):
        rounds.apply(resent(bench.new("http://there/x"), now_ms=0))
    assert len(rounds) <= 2
    assert not rounds.is_superseded(first), "forgotten"


def test_marks_of_rounds_and_of_urls_share_a_topic_and_nothing_else(bench: WebhookBench) -> None:
    first = bench.new("http://there/x")
    later = resent(first, now_ms=first["created_ms"] + 5)
    mark = records.resend_mark(bench.settings, later, now_ms=1)
    gone = records.disabled_mark(bench.settings, first, until_ms=bench.now_ms * 2, now_ms=1)
    assert mark[:2] == gone[:2]
    assert b"/" not in (mark.record.key or b"/")
    assert DELIVERY.decode(mark.record.value or b"")["due_ms"] is None, "a sender that knows no rounds passes it over"
    bench.disabled.apply(None, [mark.record, gone.record])  # type: ignore[arg-type,list-item]
    assert len(bench.disabled) == len(bench.disabled.resends) == 1
