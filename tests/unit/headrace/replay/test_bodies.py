"""The bodies of repeated tasks fit the mode in which they are repeated, and hold every number as it was."""

from __future__ import annotations

from typing import Any

import pytest

from core.settings.loader import load_settings
from core.storage.blobs import open_blobs
from headrace.replay.bodies import ReplayBodies
from headrace.replay.choice import Choice
from headrace.replay.copy import replayed_task
from headrace.replay.selection import Selection, model_of
from headrace.replay.state import State, Target
from tests.support.records import task, task_id

NOW_MS = 1_795_000_000_000
SEED = b'"seed":123456789012345678901234567890'


async def repeated(model_to: str | None, **old: Any) -> bytes | str | None:
    """Return the body of a repeated task."""
    settings = load_settings(environ={"HEADRACE_STORAGE_URL": "memory:///"})
    first = task(**old)
    pick = Selection(0, 3, 42, task_id(partition=3), first, model_of(first), None)
    target = Target(model_to=model_to)
    state = State(
        name="r", created_ms=NOW_MS, start_s=1_794_999_123, choice=Choice(), target=target, spans=[], widths={}
    )
    copy = replayed_task(pick, state, partitions=6, now_ms=NOW_MS)
    return (await ReplayBodies(settings, open_blobs(settings)).fill(copy, pick, model_to=model_to)).task["data"]


@pytest.mark.parametrize("model_to", [None, "n"])
async def test_options_of_a_stream_that_there_is_not_are_left_out(model_to: str | None) -> None:
    """An older version put tasks with them, which the model server refused: those are what is repeated."""
    data = b'{"model":"m",%b,"stream":false,"stream_options":{"include_usage":true}}' % SEED
    sent = b'{"model":"%b",%b,"stream":false}' % ((model_to or "m").encode(), SEED)
    assert await repeated(model_to, data=data, mode="callback") == sent
    assert await repeated(model_to, data=data.replace(b"false", b"true"), mode="blocking") == sent


@pytest.mark.parametrize("model_to", [None, "m"])
async def test_a_stream_keeps_them(model_to: str | None) -> None:
    data = b'{"model":"m",%b,"stream":true,"stream_options":{"include_usage":true}}' % SEED
    assert await repeated(model_to, data=data, mode="streaming") == data


async def test_a_body_that_cannot_be_read_is_repeated_as_it_was() -> None:
    assert await repeated(None, data=b"no") == b"no"
    assert await repeated(None, data=b"--b", content_type="multipart/form-data; boundary=b") == b"--b"
