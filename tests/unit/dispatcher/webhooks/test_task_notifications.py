"""Which status rows cause notifications to a callback that subscribes to them."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from dispatcher.webhooks.notifications import MIN_INTERVAL_MS, ProgressNotifications
from schemas.headers import CALLBACK_EVENTS, find
from schemas.records import Status
from streams.outputs import status_record
from tests.support.webhook_bench import row


def told(news: ProgressNotifications, row_: Status, now_ms: int = 0) -> list[str]:
    return [each["id"].removeprefix(f"{row_['id']}-") for each in news.due_for(row_, now_ms=now_ms)]


def test_the_start_is_notified_once_with_its_time() -> None:
    news = ProgressNotifications()
    assert told(news, row(state="queued", started_ms=None)) == []
    [start] = news.due_for(row(), now_ms=50)
    assert orjson.loads(start["payload"] or b"") == {
        "status_code": 202,
        "request_id": row()["id"],
        "event": "start",
        "body": {"state": "processing", "attempt": 1, "progress": 0, "started_ms": 10},
    }
    assert (start["url"], start["owner"], start["result_offset"]) == ("http://there/", "key-one", None)
    assert told(news, row()) == []
    assert told(news, row(attempt=2)) == []


def test_the_start_of_a_short_call_is_notified_at_its_end() -> None:
    assert told(ProgressNotifications(), row(state="completed", finished_ms=500)) == ["start"]
    assert told(ProgressNotifications(), row(state="completed", finished_ms=90_000)) == [], (
        "an earlier sender has told it"
    )
    assert told(ProgressNotifications(), row(state="cancelled", finished_ms=500)) == []
    news = ProgressNotifications()
    assert told(news, row()) == ["start"]
    assert told(news, row(state="completed", finished_ms=500)) == []


def test_progress_is_notified_at_most_every_half_second_and_only_forward() -> None:
    news = ProgressNotifications()
    told(news, row())
    assert told(news, row(progress=5), 1_000) == ["progress-1-5"]
    assert told(news, row(progress=9), 1_000 + MIN_INTERVAL_MS - 1) == []
    assert told(news, row(progress=9), 1_000 + MIN_INTERVAL_MS) == ["progress-1-9"]
    assert told(news, row(progress=9), 9_000) == []
    assert told(news, row(2, progress=3), 1_001) == ["start", "progress-1-3"], "each task has its own time"


def test_only_the_expiry_of_a_finished_task_is_notified() -> None:
    assert told(ProgressNotifications(), row(state="expired", finished_ms=90_000)) == ["expired"]
    assert told(ProgressNotifications(), row(state="expired", started_ms=None)) == []
    assert told(ProgressNotifications(), row(state="expired", finished_ms=5, duplicate_of="TASK-1")) == []


def test_only_subscribed_events_are_notified() -> None:
    assert told(ProgressNotifications(), row(callback_events=[])) == []
    assert told(ProgressNotifications(), row(callback_events=["completed"])) == []
    assert told(ProgressNotifications(), row(callback_url=None)) == []


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dispatcher.webhooks.notifications.TRACKED_TASKS", 100)
    news = ProgressNotifications()
    for number in range(310):
        news.due_for(row(number), now_ms=0)
        assert min(number + 1, 100) <= len(news._sent) <= 200
    held = len(news._sent)
    news.due_for(row(305, state="completed", finished_ms=20), now_ms=0)
    assert len(news._sent) == held - 1


def test_only_rows_with_notifications_have_the_header() -> None:
    def marked(**changes: Any) -> bytes | None:
        record = status_record({**row(**changes), "updated_ms": 0}, now_ms=0)  # type: ignore[typeddict-unknown-key]
        return find(record.headers, CALLBACK_EVENTS)

    assert marked() == b"start,progress,expired"
    assert marked(callback_events=["completed", "start"]) == b"completed,start"
    assert marked(callback_events=[]) is None
    assert marked(callback_events=["completed"]) is None
    assert marked(callback_url=None) is None
