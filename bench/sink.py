"""A receiver of callbacks: records every delivery by task id, and fails, hangs or redirects when its address says so.

`async with Sink() as sink`, then `sink.url` for a receiver that takes all, `sink.url_for(status=503, fail_times=2)` for
one that does not; every behaviour of the simulator is understood. `python -m bench.sink` runs it as a process.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlencode

import orjson

from bench.serve import serve
from bench.simulator.answers import Answer, error, padded
from bench.simulator.behaviour import Behaviour, Fault, of_members
from bench.simulator.script import ScriptedServer
from bench.simulator.stats import epoch_ms
from bench.wire import Exchange, Request

PATH = "/callback"
THANKS = b'{"received":true}'


@dataclass(frozen=True, slots=True)
class Delivery:
    """One callback as it arrived, and the status that it was answered with (None: with no whole answer)."""

    at_ms: int
    target: str
    headers: dict[str, str]
    body: bytes
    status: int | None

    def json(self) -> Any:
        """Decode the body."""
        return orjson.loads(self.body)


class Sink(ScriptedServer):
    """The callback receiver. `received` holds the deliveries of each task id, in order of arrival."""

    def __init__(self, *, host: str = "127.0.0.1", port: int = 0) -> None:
        super().__init__(host=host, port=port)
        self.received: dict[str, list[Delivery]] = {}

    @property
    def url(self) -> str:
        """The address that accepts everything (unless `default` was changed)."""
        return self.root + PATH

    def url_for(self, **behaviour: Any) -> str:
        """Give an address whose callbacks get this behaviour."""
        of_members(behaviour, param="url_for")
        return f"{self.url}?{urlencode(behaviour)}"

    @property
    def doubled(self) -> dict[str, int]:
        """Count the deliveries of every id that was accepted (2xx) more than once."""
        accepted = Counter(
            key for key, deliveries in self.received.items() for each in deliveries if (each.status or 0) // 100 == 2
        )
        return {key: count for key, count in accepted.items() if count > 1}

    def plan(self, request: Request) -> tuple[Behaviour, Answer]:
        """Choose by the query of the address."""
        if request.path != PATH:
            return self.default, error(404, f"Callbacks go to {PATH}.")
        behaviour = _of_query(request.query) if request.query else self.default
        return behaviour, padded(THANKS, behaviour.size)

    def key_of(self, request: Request) -> str | None:
        """Find the task id: the member request_id, else the headers x-task-id or webhook-id, else the member id."""
        try:
            body = orjson.loads(request.body)
        except orjson.JSONDecodeError:
            body = None
        members = body if isinstance(body, dict) else {}
        headers = request.headers
        found = (members.get("request_id"), headers.get("x-task-id"), headers.get("webhook-id"), members.get("id"))
        return next((name for name in found if isinstance(name, str)), "")

    def arrived(self, exchange: Exchange, behaviour: Behaviour, answer: Answer) -> None:
        """Record a delivery."""
        request = exchange.request
        target = f"{request.path}?{request.query}" if request.query else request.path
        delivery = Delivery(
            at_ms=epoch_ms(),
            target=target,
            headers=request.headers,
            body=request.body,
            status=answer.status if behaviour.fault in {None, Fault.REDIRECT} else None,
        )
        self.received.setdefault(exchange.key or "", []).append(delivery)

    def steer(self, request: Request) -> Answer:
        """Answer /sim/received, with ?id= for the bodies of one task, else with a count for each id."""
        if (request.method, request.path) != ("GET", "/sim/received"):
            return super().steer(request)
        key = parse_qs(request.query).get("id", [None])[0]
        if key is None:
            return Answer(body=orjson.dumps({name: len(deliveries) for name, deliveries in self.received.items()}))
        return Answer(body=orjson.dumps([_delivery_json(each) for each in self.received.get(key, [])]))

    def reset(self) -> None:
        """Forget all deliveries too."""
        super().reset()
        self.received.clear()


@lru_cache(maxsize=4096)
def _of_query(query: str) -> Behaviour:
    return of_members(dict(parse_qsl(query)), param="query")


def _delivery_json(delivery: Delivery) -> dict[str, object]:
    return {
        "at_ms": delivery.at_ms,
        "target": delivery.target,
        "status": delivery.status,
        "headers": delivery.headers,
        "body": delivery.body.decode("utf-8", "replace"),
    }


if __name__ == "__main__":
    serve(Sink, "Run the callback receiver.")
