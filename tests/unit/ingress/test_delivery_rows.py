"""The local store of what became of callbacks."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from aiokafka import TopicPartition

from core.deliveries import new_delivery, row
from core.settings.models import Settings
from ingress.read_model.deliveries import Deliveries, _opened

TASK = "TASK-1-0-C-261118110640-0001-000001"


def test_a_stray_record_is_no_delivery(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    told = new_delivery(
        TASK,
        "completed",
        name="completed",
        url="http://there/x",
        owner=None,
        level=0,
        result_offset=1,
        payload=None,
        now_ms=1,
    )
    placed = row(settings, told, now_ms=1)
    stray = f"{TASK}/start".encode()
    records: list[Any] = [
        SimpleNamespace(key=stray, value=b"stray", offset=0),
        SimpleNamespace(key=stray + b"ed", value=b"\x00\x00\x00\x00\x0a\xff", offset=1),
        SimpleNamespace(key=placed.record.key, value=placed.record.value, offset=2),
    ]
    kept = Deliveries(settings, name="test")
    kept._store = _opened(tmp_path / "deliveries")
    kept._tail = SimpleNamespace(caught_up=True)  # type: ignore[assignment]  # all that is asked of it
    kept.feed(TopicPartition(placed.topic, placed.partition), records)
    assert [one["event"] for one in kept.of(TASK)] == ["completed"]
    kept._store.close()
