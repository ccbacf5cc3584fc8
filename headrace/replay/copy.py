"""Create the task that repeats an original. Pure; bodies are copied by `bodies`."""

from __future__ import annotations

from hashlib import blake2b
from typing import NamedTuple

import orjson

from core.kafka.producer import Record
from headrace.replay.selection import Selection
from headrace.replay.state import State
from schemas.codec import TASK
from schemas.headers import headers
from schemas.ids import TaskId, replay_id
from schemas.json_text import TooDeep, changed, read_json
from schemas.partitioning import home_partition, queue_number
from schemas.records import NO_ORIGIN, Mode, Task
from schemas.task_body import stream_changes

TIMEOUT_MS = 86_400_000
"""Minimum timeout of a replayed task: it may be queued for long without an open connection, so the timeout of a
blocking original would expire most of a large replay before it starts."""


class ReplayedTask(NamedTuple):
    """A task to write, with its topic and partition."""

    id: TaskId
    task: Task

    def record(self, *, now_ms: int) -> Record:
        """Encode the record as an ingress does."""
        task, text = self.task, str(self.id)
        described = headers(
            kind="task",
            ce_id=text,
            at_ms=now_ms,
            queue=task["queue"],
            level=task["level"],
            owner=task["owner"],
            deadline_ms=now_ms + task["timeout_ms"],
        )
        return Record(text.encode(), TASK.encode(task), described, now_ms)


def replayed_task(pick: Selection, state: State, *, partitions: int, now_ms: int) -> ReplayedTask:
    """Return the task that repeats one: same tenant and request, a new id, no webhooks unless requested."""
    old, target = pick.task, state.target
    queue = target.queue_to or old["queue"]
    home, wide = pick.partition, 1
    if width := state.widths.get(queue, 0):
        home, wide = home_partition(queue, pick.partition, width=width, partitions=partitions), partitions
    task_id = replay_id(
        queue_number=queue_number(queue),
        level=pick.level,
        home=home,
        wide=wide,
        start_s=state.start_s,
        partition=pick.partition,
        offset=pick.offset,
    )
    notified = target.callbacks
    task: Task = {
        **old,
        "queue": queue,
        "id": str(task_id),
        # Tokens and time to first token of a stream are measured only when it is relayed.
        "mode": "streaming" if old["mode"] == "streaming" else "callback",
        "model": target.model_to or pick.model,
        "callback_url": old["callback_url"] if notified else None,
        "callback_events": old["callback_events"] if notified else [],
        "idempotency_key": _key(old, state.name),
        "created_ms": now_ms,
        "timeout_ms": TIMEOUT_MS,
        "start_timeout_ms": 0,
        **NO_ORIGIN,
        "replay_of": pick.task_id,
        "reply_topic": old["reply_topic"] if notified else None,
    }
    return ReplayedTask(task_id, task)


def with_model(body: bytes, model: str, *, mode: Mode = "callback") -> bytes | None:
    """Return the request with another model; None if the body is not a JSON object with a model."""
    try:
        document = read_json(body)
        if not isinstance(document, dict) or "model" not in document:
            return None
        return changed(body, document, {"model": orjson.dumps(model), **stream_changes(document, mode)})
    except (orjson.JSONDecodeError, TooDeep):
        return None


def _key(old: Task, name: str) -> str | None:
    """Return a new idempotency key per original key: of all duplicates only one runs again."""
    key = old["idempotency_key"]
    if key is None:
        return None
    return "replay-" + blake2b(orjson.dumps([name, old["queue"], key]), digest_size=16).hexdigest()
