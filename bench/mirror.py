"""What the OpenAI mirror adds to a call: to its whole answer when idle, to its first token with many streams open."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence

from bench.cluster import cluster
from bench.load import build_request, percentile, run_load
from bench.measures import HEADERS, start_all
from bench.report import Row
from bench.simulator import Simulator

PATH = "/v1/chat/completions"
STREAMS = 50
TOKEN_MS = 50
FEWEST_TOKENS = 15
KINDS = 20
"""Streams of as many lengths, so that their ends, and with them the next beginnings, come apart."""


async def mirror(calls: int) -> list[Row]:
    """Compare held and streamed calls with direct ones of the same upstream, in turn, in one run."""
    async with Simulator() as upstream, cluster(upstream__urls=upstream.url) as running:
        await start_all(running)
        through, direct = (
            build_request(root + PATH, body=_body(), headers=HEADERS) for root in (running.url, upstream.root)
        )
        await run_load(running.url, through, connections=1, total=50)
        held: list[float] = []
        plain: list[float] = []
        with running.meter() as meter:
            for _ in range(calls // 20):
                held += (await run_load(running.url, through, connections=1, total=20)).latency_ms
                plain += (await run_load(upstream.root, direct, connections=1, total=20)).latency_ms
        cpu = meter.ms_per(len(held))
        streamed, alone = [await _first_tokens(root, STREAMS + calls) for root in (running.url, upstream.root)]
    command = f"python -m bench mirror --tasks {calls}"
    return [
        *_added("added latency, held call of the mirror, idle", held, plain, cpu=cpu, command=command),
        *_added(f"added time to first token, {STREAMS} streams open", streamed, alone, cpu={}, command=command),
    ]


def _added(
    what: str, through: Sequence[float], direct: Sequence[float], *, cpu: Mapping[str, float], command: str
) -> list[Row]:
    added50 = statistics.median(through) - statistics.median(direct)
    added99 = percentile(through, 99) - percentile(direct, 99)
    return [
        Row(f"{what}, p50", added50, "ms", 20, lower_is_better=True, cpu_ms=cpu, command=command),
        Row(f"{what}, p99", added99, "ms", 60, lower_is_better=True, command=command),
    ]


async def _first_tokens(root: str, streams: int) -> Sequence[float]:
    """Return the milliseconds to the first frame; those that began all at once are left out."""
    requests = [
        build_request(root + PATH, body=_body(stream=True, tokens=FEWEST_TOKENS + kind), headers=HEADERS)
        for kind in range(KINDS)
    ]
    result = await run_load(root, requests, connections=STREAMS, total=streams)
    assert set(result.statuses) == {200}, result.statuses  # noqa: S101 - a refused call has no first token
    return result.first_byte_ms[STREAMS:]


def _body(*, stream: bool = False, tokens: int = 8) -> bytes:
    asked = {"tokens": tokens, "token_ms": TOKEN_MS} if stream else {}
    messages = [{"role": "user", "content": "ping " * 60}]
    return json.dumps({"model": "sim-instant", "messages": messages, "stream": stream, "sim": asked}).encode()
