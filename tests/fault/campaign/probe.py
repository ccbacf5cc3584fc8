"""Probe tasks: how long after a blow does new work get through?"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Callable

import aiohttp

from tests.fault.campaign.ledger import Accepted, Answer, Ledger, is_unconfirmed
from tests.fault.campaign.load import HEADERS, QUEUE

WAVE = 8
"""Ingresses deal tasks out to the partitions of a queue in turn; two ingresses with four each meet most of them."""
LIMIT_S = 180.0
RETRY_S = 0.1


class Prober:
    """Send blocking tasks, again while they are refused, to any ingress that a load balancer would choose."""

    def __init__(self, ledger: Ledger, urls: Callable[[], list[str]], session: aiohttp.ClientSession) -> None:
        self._ledger, self._urls, self._session = ledger, urls, session
        self._turn = itertools.count()

    def wave(self) -> list[asyncio.Task[None]]:
        """Send several at once; each ends when its answer is there."""
        return [asyncio.create_task(self._until_done(), name="probe") for _ in range(WAVE)]

    async def _until_done(self) -> None:
        number = next(self._turn)
        data = {"model": "sim", "messages": [{"role": "user", "content": f"probe {number}"}], "sim": {}}
        put = {"queue": QUEUE, "endpoint": "/v1/chat/completions", "response_mode": "blocking", "data": data}
        encoded = json.dumps(put).encode()
        while True:
            if await self._done(encoded, number):
                return
            await asyncio.sleep(RETRY_S)

    async def _done(self, put: bytes, number: int) -> bool:
        urls = self._urls()
        if not urls:
            return False
        try:
            url = urls[number % len(urls)]
            async with self._session.post(f"{url}/v1/queue/put", data=put, headers=HEADERS) as answer:
                body = await answer.read()
        except (aiohttp.ClientError, TimeoutError, OSError):
            return False
        task_id = answer.headers.get("x-task-id")
        if task_id is not None and not is_unconfirmed(answer.status, body):
            self._ledger.accepted[task_id] = Accepted(
                "probe", "blocking", Answer(answer.status, body, answer.content_type)
            )
        return answer.status == 200
