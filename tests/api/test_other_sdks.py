"""Streams with long silences, read by the OpenAI SDKs of Go and of Node; skipped where a language is not installed."""

from __future__ import annotations

import asyncio
import json

import httpx
import pytest

from tests.support.other_sdks import GO_VERSIONS, MAKE_S, Program, go_program, node_program
from tests.support.stack import KEY, Stack

MODEL = "sim-instant"
SLOW = {"tokens": 4, "token_ms": 500}
"""What the programs ask for: pauses that are longer than `ingress.keep_alive_s` of the stack."""
PROGRAM_S = 120

pytestmark = pytest.mark.timeout(3 * MAKE_S)  # the first run on a machine builds what it needs


async def _streamed(program: Program, stack: Stack) -> dict[str, object]:
    process = await asyncio.create_subprocess_exec(
        *program, f"{stack.url}/v1", KEY, MODEL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(PROGRAM_S):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode == 0, err.decode()
    found: dict[str, object] = json.loads(out)
    return found


def _is_whole(found: dict[str, object]) -> None:
    assert found["error"] == ""
    assert len(str(found["text"]).split()) == 4


@pytest.mark.parametrize("version", GO_VERSIONS)
async def test_go(whole: Stack, version: str) -> None:
    program = await asyncio.to_thread(go_program, version)
    _is_whole(await _streamed(program, whole))


async def test_node(whole: Stack) -> None:
    program = await asyncio.to_thread(node_program)
    _is_whole(await _streamed(program, whole))


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/queue/chat/completions", "/v1/queue/put"])
async def test_there_are_keep_alives_in_these_streams_and_no_empty_line_follows(whole: Stack, path: str) -> None:
    data = {"model": MODEL, "messages": [{"role": "user", "content": "Hallo"}], "sim": SLOW, "stream": True}
    put = {"queue": "default", "endpoint": "/v1/chat/completions", "response_mode": "streaming", "data": data}
    async with httpx.AsyncClient(headers={"authorization": f"Bearer {KEY}"}, timeout=PROGRAM_S) as client:
        answer = await client.post(whole.url + path, json=put if path.endswith("put") else data)
    assert b": keep-alive\n" in answer.content
    assert b": keep-alive\n\n" not in answer.content
