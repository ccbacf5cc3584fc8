"""Refuse a body that is still on its way so that its sender can read why.

A server that closes while bytes arrive makes the kernel send a reset, which can overtake the answer. So the answer is
sent whole, what still comes is thrown away for a while, and only then the connection is closed. A client that listens
while it sends stops at the answer; one that waits for "100 Continue" never begins.
"""

from __future__ import annotations

import asyncio

from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from ingress.http.body import ENDED

DRAIN_BYTES = 134_217_728
DRAIN_S = 15.0


class DrainingResponse(Response):
    """Sends another answer and drains the request's body before the end of it."""

    def __init__(self, answer: Response) -> None:
        super().__init__(status_code=answer.status_code)
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one client."""

        async def without_end(message: Message) -> None:
            await send({**message, "more_body": True} if message["type"] == "http.response.body" else message)

        await self._answer(scope, receive, without_end)
        if not scope.get(ENDED, False):
            await _drain(receive)
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _drain(receive: Receive) -> None:
    size = 0
    try:
        async with asyncio.timeout(DRAIN_S):
            while size <= DRAIN_BYTES:
                message = await receive()
                size += len(message.get("body", b""))
                if message["type"] == "http.disconnect" or not message.get("more_body", False):
                    return
    except TimeoutError:
        return
