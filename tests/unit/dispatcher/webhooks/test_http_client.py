"""Which addresses one attempt may connect to: hostile URLs are never connected to, whatever their names resolve to."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult

from core.settings.models import Settings
from dispatcher.webhooks import http_client
from dispatcher.webhooks.circuit_breaker import HostHealth
from dispatcher.webhooks.http_client import Disposition, WebhookClient, classify_status
from schemas.callback_url import CallbackPolicy, policy_of
from tests.support.hostile_urls import ALWAYS, FINE, ODD_PORTS, PRIVATE
from tests.support.receiver import Receiver

HOOKS = Settings.model_validate({"webhooks": {"timeout_s": 300}}).webhooks
BODY = b'{"status_code":200,"request_id":"x","body":null}'


class Rebinding(AbstractResolver):
    """Returns a public address first, and a local one when it matters: all names lead to this machine."""

    def __init__(self, address: str = "127.0.0.1", port: int | None = None) -> None:
        self.address, self.port, self.asked = address, port, 0

    async def resolve(
        self,
        host: str,
        port: int = 0,
        family: socket.AddressFamily = socket.AF_INET,  # noqa: ARG002 - aiohttp's
    ) -> list[ResolveResult]:
        self.asked += 1
        kind = socket.AF_INET6 if ":" in self.address else socket.AF_INET
        return [
            {"hostname": host, "host": self.address, "port": self.port or port, "family": kind, "proto": 6, "flags": 0}
        ]

    async def close(self) -> None:
        """Close nothing."""


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use a short timeout for a body that does not end."""
    monkeypatch.setattr(http_client, "BODY_TIMEOUT_S", 0.05)


@pytest.fixture
async def connections(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Every connection that the loop was asked to make."""
    loop = asyncio.get_running_loop()
    asked: list[object] = []

    async def noted(sock: socket.socket, address: object) -> None:
        asked.append(address)
        raise ConnectionRefusedError

    monkeypatch.setattr(loop, "sock_connect", noted)
    return asked


async def test_nothing_of_the_corpus_is_connected_to(connections: list[object]) -> None:
    client = WebhookClient(HOOKS, policy_of(private=False, ports=()), Rebinding())
    for url in [*ALWAYS, *PRIVATE, *ODD_PORTS]:
        answer = await client.post(url, BODY, {})
        assert (answer.disposition, answer.kind) == (Disposition.REFUSED, "blocked"), url
    assert connections == []
    await client.close()


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.5", "169.254.169.254", "::1", "fd00::1", "::ffff:10.0.0.5"])
async def test_a_name_that_leads_inside_is_not_connected_to(address: str, connections: list[object]) -> None:
    resolver = Rebinding(address)
    client = WebhookClient(HOOKS, policy_of(private=False, ports=()), resolver)
    for url in FINE:
        answer = await client.post(url, BODY, {})
        if resolver.asked:
            assert (answer.disposition, answer.kind) == (Disposition.REFUSED, "blocked"), url
            assert "not allowed for callbacks" in answer.reason
        resolver.asked = 0
    assert all("8.8.8.8" in str(each) or "2606:4700" in str(each) for each in connections), "only what is public"
    await client.close()


async def test_metadata_services_are_not_reached_where_private_addresses_are_allowed(connections: list[object]) -> None:
    client = WebhookClient(HOOKS, CallbackPolicy(private=True), Rebinding("169.254.169.254"))
    answer = await client.post("http://rebound.example/", BODY, {})
    assert (answer.disposition, answer.kind) == (Disposition.REFUSED, "blocked")
    assert connections == []
    await client.close()


async def test_redirects_and_proxies_are_not_followed(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    client = WebhookClient(HOOKS, CallbackPolicy(private=True))
    for status in (300, 301, 302, 303, 307, 308):
        answer = await client.post(f"{receiver.root}/{status}", BODY, {})
        assert (answer.disposition, answer.kind, answer.status) == (Disposition.RETRY, "redirect", status)
    assert len(receiver.got["x"]) == 6
    await client.close()


async def test_what_an_answer_costs_is_bounded(receiver: Receiver) -> None:
    client = WebhookClient(HOOKS, CallbackPolicy(private=True))
    async with asyncio.timeout(60):  # neither body takes more than its timeout, nor the call its five minutes
        for path in ("flood", "lie"):
            assert (await client.post(f"{receiver.root}/{path}", BODY, {})).disposition is Disposition.DELIVERED
    await client.close()


async def test_a_host_that_refuses_is_away(receiver: Receiver) -> None:
    client = WebhookClient(HOOKS, CallbackPolicy(private=True))
    answer = await client.post("http://127.0.0.1:1/", BODY, {})
    assert (answer.disposition, answer.kind, answer.health) == (Disposition.RETRY, "network", HostHealth.UNREACHABLE)
    tls = await client.post(f"https://127.0.0.1:{receiver.port}/", BODY, {})
    assert (tls.disposition, tls.health) == (Disposition.RETRY, HostHealth.UNREACHABLE)
    await client.close()


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        (b"HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\nok", Disposition.DELIVERED),
        (b"HTTP/1.1 204 No Content\r\n\r\nok", Disposition.DELIVERED),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nok", Disposition.DELIVERED),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nok", Disposition.DELIVERED),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", Disposition.DELIVERED),
        (b"HTTP/1.1 410 Gone\r\nContent-Length: 2\r\n\r\ngone", Disposition.GONE),
        (b"ok\r\n\r\nok", Disposition.RETRY),
    ],
)
async def test_the_status_stands_whatever_follows_the_head(answer: bytes, verdict: Disposition) -> None:
    async def sloppy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError):
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(answer)
        writer.close()

    client = WebhookClient(HOOKS, CallbackPolicy(private=True))
    async with await asyncio.start_server(sloppy, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        for _ in range(2):
            assert (await client.post(url, b"", {})).disposition is verdict
        await client.close()


async def test_a_url_is_called_as_it_is_spelled() -> None:
    targets: list[bytes] = []

    async def noted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        targets.append((await reader.readuntil(b"\r\n\r\n")).split(b" ")[1])
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        writer.close()

    client = WebhookClient(HOOKS, CallbackPolicy(private=True))
    async with await asyncio.start_server(noted, "127.0.0.1", 0) as server:
        root = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        for rest in ("", "?x", "/a%c3%a9/%2e?c=%2F&d=%2B+%zz;x=1#part", "//a/../b"):
            assert (await client.post(root + rest, b"", {})).disposition is Disposition.DELIVERED
        await client.close()
    assert targets == [b"/", b"/?x", b"/a%c3%a9/%2e?c=%2F&d=%2B+%zz;x=1", b"//a/../b"]


@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        (200, Disposition.DELIVERED),
        (201, Disposition.DELIVERED),
        (204, Disposition.DELIVERED),
        (299, Disposition.DELIVERED),
        (101, Disposition.RETRY),
        (301, Disposition.RETRY),
        (302, Disposition.RETRY),
        (304, Disposition.RETRY),
        (308, Disposition.RETRY),
        (400, Disposition.RETRY),
        (401, Disposition.RETRY),
        (403, Disposition.RETRY),
        (404, Disposition.RETRY),
        (405, Disposition.RETRY),
        (408, Disposition.RETRY),
        (409, Disposition.RETRY),
        (410, Disposition.GONE),
        (413, Disposition.RETRY),
        (421, Disposition.RETRY),
        (425, Disposition.RETRY),
        (429, Disposition.RETRY),
        (451, Disposition.RETRY),
        (500, Disposition.RETRY),
        (501, Disposition.RETRY),
        (503, Disposition.RETRY),
        (599, Disposition.RETRY),
        (999, Disposition.RETRY),
    ],
)
def test_each_status_has_its_verdict(status: int, verdict: Disposition) -> None:
    assert classify_status(status).disposition is verdict


def test_a_receiver_may_ask_for_time() -> None:
    assert classify_status(503, "30").retry_after_s == 30
    assert classify_status(429, "soon").retry_after_s is None
    assert classify_status(302, "30").retry_after_s == classify_status(404, "30").retry_after_s == 30
    assert classify_status(410, "30").retry_after_s is None
