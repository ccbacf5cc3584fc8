"""Type of usage records, field by field as in avsc/."""

from __future__ import annotations

from typing import TypedDict


class UsageRecord(TypedDict):
    id: str
    owner: str | None
    queue: str
    level: int
    model: str | None
    endpoint: str
    upstream: str | None
    state: str
    status_code: int
    attempt: int
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    cost: str | None
    currency: str | None
    created_ms: int
    started_ms: int | None
    finished_ms: int
    batch_id: str | None
    replay_of: str | None
