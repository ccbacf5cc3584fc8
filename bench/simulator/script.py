"""A server whose answers are planned per request, played well or badly, and counted."""

from __future__ import annotations

import dataclasses
import hashlib
from abc import abstractmethod
from collections import deque
from urllib.parse import parse_qs

import orjson

from bench.simulator.answers import Answer, error, failure, redirection
from bench.simulator.behaviour import INSTANT, Behaviour, Fault, UnknownBehaviourError, of_members
from bench.simulator.play import play, quick
from bench.simulator.stats import Stats
from bench.wire import Exchange, Outcome, RawServer, Request

# Enough to look at what a test just sent, and nothing that a long bench could fill memory with.
RECENT = 64
# These send no status line.
SILENT = frozenset({Fault.HANG, Fault.RESET})


class ScriptedServer(RawServer):
    """Plays what `plan` says; `/sim/stats`, `/sim/reset` and `/sim/default` steer and read it from another process."""

    def __init__(self, *, host: str = "127.0.0.1", port: int = 0) -> None:
        super().__init__(host=host, port=port)
        self.stats = Stats()
        self.default: Behaviour = INSTANT
        """What requests get that ask for nothing; change it to play an outage."""
        self.recent: deque[Request] = deque(maxlen=RECENT)

    @abstractmethod
    def plan(self, request: Request) -> tuple[Behaviour, Answer]:
        """Choose behaviour and right answer; raise UnknownBehaviourError for what there is not."""

    def counts(self, request: Request) -> bool:
        """Tell whether a request is counted and may misbehave."""
        return request.method == "POST"

    def key_of(self, request: Request) -> str | None:
        """Name what arrivals are counted by when the behaviour names no key."""
        return request.headers.get("x-task-id")

    def arrived(self, exchange: Exchange, behaviour: Behaviour, answer: Answer) -> None:
        """Learn of a counted request and what it is about to get."""

    def handle(self, exchange: Exchange) -> None:
        """Answer at once when nothing speaks against it, else from a task."""
        request = exchange.request
        if request.path.startswith("/sim/"):
            exchange.finish(quick(self.steer(request)))
            return
        try:
            behaviour, answer = self.plan(request)
        except UnknownBehaviourError as refusal:
            code = "model_not_found" if refusal.status == 404 else None
            behaviour, answer = INSTANT, error(refusal.status, str(refusal), param=refusal.param, code=code)
        if not self.counts(request):
            exchange.finish(quick(answer))
            return
        self.recent.append(request)
        behaviour, answer = self._arrive(exchange, behaviour, answer)
        if behaviour.fault not in SILENT:
            self.stats.answered(answer.status)
        self.arrived(exchange, behaviour, answer)
        data = quick(answer) if behaviour.instant else None
        if data is None:
            exchange.spawn(play(exchange, behaviour, answer), name="simulated answer")
        else:
            exchange.finish(data)

    def _arrive(self, exchange: Exchange, behaviour: Behaviour, answer: Answer) -> tuple[Behaviour, Answer]:
        request = exchange.request
        key = behaviour.key or self.key_of(request)
        if key is None and behaviour.fail_times:
            key = hashlib.blake2b(request.body, digest_size=8).hexdigest()
        exchange.key, exchange.counted = key, True
        behaviour = behaviour.at_arrival(self.stats.arrived(key))
        if behaviour.fault is Fault.REDIRECT:
            return behaviour, redirection(behaviour, request.path)
        if answer.status != 200 or behaviour.status == 200:
            return behaviour, answer
        if behaviour.status >= 300:
            return behaviour, failure(behaviour)
        # A 204 has no body by definition; clients take one for the start of the next answer.
        if behaviour.status == 204:
            return behaviour, Answer(204)
        return behaviour, dataclasses.replace(answer, status=behaviour.status)

    def ended(self, exchange: Exchange, outcome: Outcome) -> None:
        """Count the end."""
        if exchange.counted:
            self.stats.ended(exchange.key, outcome)

    def steer(self, request: Request) -> Answer:
        """Answer the addresses below /sim/."""
        match request.method, request.path:
            case "GET", "/sim/stats":
                key = parse_qs(request.query).get("key", [None])[0]
                return Answer(body=orjson.dumps(self.stats.as_json(key=key)))
            case "POST", "/sim/reset":
                self.reset()
                return Answer(body=b"{}")
            case "POST", "/sim/default":
                try:
                    self.default = of_members(orjson.loads(request.body or b"{}"), param="default")
                except (UnknownBehaviourError, orjson.JSONDecodeError) as refusal:
                    return error(400, str(refusal))
                return Answer(body=self.default.model_dump_json().encode())
        return error(404, f"There is no {request.method} {request.path}.")

    def reset(self) -> None:
        """Forget the counts and go back to instant answers."""
        self.stats.reset()
        self.recent.clear()
        self.default = INSTANT
