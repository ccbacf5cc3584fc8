from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from compose.local import readiness
from tests.support.ports import free_port
from tests.support.waiting import eventually_async


class Probe:
    """An HTTP server with one answer, which may change."""

    def __init__(self) -> None:
        self.status = 503
        self.body = b'{"ready":false,"missing":["no model","no topic"]}'
        probe = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(probe.status)
                self.end_headers()
                self.wfile.write(probe.body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/readyz"


@pytest.fixture
def probe() -> Iterator[Probe]:
    probe = Probe()
    thread = threading.Thread(target=probe.server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield probe
    probe.server.shutdown()
    probe.server.server_close()
    thread.join()


async def test_waits_with_a_word_now_and_then_until_all_are_up(probe: Probe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness, "FIRST_REMINDER_S", 0.0)
    said: list[str] = []
    waiting = asyncio.create_task(readiness.until_ok({"ingress": probe.url}, said.append))
    await eventually_async(lambda: said)
    assert said[0] == "waiting for ingress: no model, no topic"
    assert not waiting.done()
    probe.status = 200
    await asyncio.wait_for(waiting, 10)


async def test_no_worker_is_a_reason_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness, "FIRST_REMINDER_S", 0.0)
    said: list[str] = []
    url = f"http://127.0.0.1:{free_port()}/readyz"
    waiting = asyncio.create_task(readiness.until_ok({"ingress": url}, said.append))
    await eventually_async(lambda: said)
    assert "refused" in said[0]
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


@pytest.mark.parametrize("body", ["", "not JSON", "[]", "{}", '{"missing": 1}'])
def test_another_answer_is_repeated_as_it_is(body: str) -> None:
    assert readiness.reason(body) == body
