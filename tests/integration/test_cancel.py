"""Cancel over HTTP through the real roles: what waits never runs, what runs is closed, and nothing follows."""

from __future__ import annotations

import asyncio
import logging
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack

import aiohttp
import pytest

from bench.simulator import Simulator
from tests.integration.test_idempotency import until_ready
from tests.support.ports import free_port
from tests.support.roles import Role, running, settings_for
from tests.support.scheduler_probe import SchedulerProbe, scheduler_probe
from tests.support.waiting import POLL_S, eventually_async

log = logging.getLogger(__name__)

MINE, THEIRS = ({"authorization": f"Bearer {key}"} for key in ("key-of-mine", "key-of-theirs"))
CANCELS = 200
AT_ONCE = 40


class Site:
    """Two ingresses, a scheduler and a dispatcher before a simulator, and a probe on their topics."""

    def __init__(self, urls: list[str], roles: tuple[Role, Role], simulator: Simulator, probe: SchedulerProbe) -> None:
        self.urls, (self.streams, self.dispatcher) = urls, roles
        self.stats, self.probe = simulator.stats, probe

    def arrivals(self, name: str) -> int:
        """Count the calls of a task at the model server."""
        return self.stats.keys[name].arrivals if name in self.stats.keys else 0

    def closed_ms(self, name: str) -> list[int]:
        """Return when connections of a task were closed before their answer."""
        return self.stats.keys[name].disconnect_ms if name in self.stats.keys else []


@pytest.fixture(scope="module")
async def site(kafka: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    folder = tmp_path_factory.mktemp("cancel")
    async with Simulator() as simulator:
        settings, env = settings_for(
            kafka,
            folder,
            f"cancel-{time.time_ns()}.",
            upstream__urls=[simulator.url],
            streams__session_timeout_s=12,
            streams__lease_s=3,
            auth__api_keys=["key-of-mine", "key-of-theirs"],
        )
        ports = [free_port(), free_port()]
        async with scheduler_probe(settings) as probe:
            with ExitStack() as stack:

                def role(name: str, *arguments: str) -> Role:
                    return stack.enter_context(running(*arguments, env=env, log=folder / f"{name}.log"))

                streams = role("streams", "streams", "--level", "online")
                role("streams-offline", "streams", "--level", "offline")
                dispatcher = role("dispatcher", "dispatcher")
                for port in ports:
                    role(f"ingress-{port}", "ingress", "--port", str(port))
                urls = [f"http://127.0.0.1:{port}" for port in ports]
                for url in urls:
                    await until_ready(url)
                yield Site(urls, (streams, dispatcher), simulator, probe)


def put_body(name: str, mode: str = "callback", **sim: object) -> dict[str, object]:
    data = {"model": "sim", "messages": [{"role": "user", "content": name}], "sim": {"key": name, **sim}}
    return {"queue": "chat", "endpoint": "/v1/chat/completions", "response_mode": mode, "data": data}


async def put(session: aiohttp.ClientSession, url: str, name: str, **sim: object) -> str:
    async with session.post(f"{url}/v1/queue/put", json=put_body(name, **sim), headers=MINE) as answer:
        assert answer.status == 200
        return str((await answer.json())["data"])


async def cancel(
    session: aiohttp.ClientSession, url: str, task_id: str, headers: dict[str, str] = MINE
) -> tuple[int, object]:
    async with session.post(f"{url}/v1/queue/{task_id}/cancel", headers=headers) as answer:
        return answer.status, await answer.json()


async def state(session: aiohttp.ClientSession, url: str, task_id: str) -> str:
    async with session.get(f"{url}/v1/queue/{task_id}", headers=MINE) as answer:
        return str((await answer.json())["status"])


async def judged(session: aiohttp.ClientSession, url: str, task_id: str) -> None:
    for _ in range(1_000):
        if await state(session, url, task_id) == "cancelled":
            return
        await asyncio.sleep(POLL_S)
    pytest.fail(f"{task_id} was not judged within 20 s")


async def runs_through(session: aiohttp.ClientSession, site: Site, name: str) -> None:
    """Return when a task that was put now has succeeded: whatever was before it has been read."""
    marker = await put(session, site.urls[0], name)
    await eventually_async(lambda: site.probe.results[marker], within_s=40, what="the marker's end")


def outcomes(site: Site, task_id: str) -> list[str]:
    return [result["state"] for result in site.probe.results[task_id]]


async def test_what_runs_is_closed_within_a_second(site: Site) -> None:
    waits: list[float] = []

    async def one(session: aiohttp.ClientSession, number: int) -> str:
        name = f"hang-{number}"
        task_id = await put(session, site.urls[number % 2], name, fault="hang")
        await eventually_async(lambda: site.arrivals(name), what="the call")
        asked_ms, other = time.time_ns() / 1e6, site.urls[(number + 1) % 2]
        assert await cancel(session, other, task_id) == (202, task_id)
        # At once, unless everything is slow: after a second the answer comes without the judgement.
        await judged(session, other, task_id)
        await eventually_async(lambda: site.closed_ms(name), within_s=5, what="the closing of the call")
        waits.append(site.closed_ms(name)[0] - asked_ms)
        return task_id

    async with aiohttp.ClientSession() as session:
        ids: list[str] = []
        for begin in range(0, CANCELS, AT_ONCE):
            ids += await asyncio.gather(*(one(session, number) for number in range(begin, begin + AT_ONCE)))
        await runs_through(session, site, "after-hang")
    assert {tuple(outcomes(site, task_id)) for task_id in ids} == {("cancelled",)}
    p50, p99 = statistics.median(waits), statistics.quantiles(waits, n=100)[98]
    log.info("%d cancels: p50 %.0f ms, p99 %.0f ms, max %.0f ms", CANCELS, p50, p99, max(waits))
    assert p99 < 1000, f"p50 {p50:.0f} ms, p99 {p99:.0f} ms"


async def test_what_waits_never_reaches_the_model_server(site: Site) -> None:
    site.dispatcher.kill()
    async with aiohttp.ClientSession() as session:
        names = [f"waits-{number}" for number in range(30)]
        ids = [await put(session, site.urls[0], name) for name in names]
        for number, task_id in enumerate(ids):
            assert await cancel(session, site.urls[number % 2], task_id) == (202, task_id)
            assert await state(session, site.urls[number % 2], task_id) == "cancelled"
        site.dispatcher.start()
        await runs_through(session, site, "after-waits")
    assert [site.arrivals(name) for name in names] == [0] * 30
    assert {tuple(outcomes(site, task_id)) for task_id in ids} == {("cancelled",)}


async def test_a_cancel_right_after_the_put_counts_at_any_ingress(site: Site) -> None:
    async def one(session: aiohttp.ClientSession, number: int) -> str:
        task_id = await put(session, site.urls[number % 2], f"early-{number}", latency_ms=20_000)
        assert await cancel(session, site.urls[(number + 1) % 2], task_id) == (202, task_id)
        return task_id

    async with aiohttp.ClientSession() as session:
        ids = await asyncio.gather(*(one(session, number) for number in range(50)))
        await eventually_async(lambda: all(outcomes(site, task_id) for task_id in ids), what="50 outcomes")
    assert {tuple(outcomes(site, task_id)) for task_id in ids} == {("cancelled",)}


async def test_what_cannot_be_cancelled(site: Site) -> None:
    async with aiohttp.ClientSession() as session:
        task_id = await put(session, site.urls[0], "done")
        await eventually_async(lambda: outcomes(site, task_id) == ["completed"])
        await eventually_async(lambda: site.probe.row_states[task_id][-1:] == ["completed"])
        status, envelope = await cancel(session, site.urls[0], task_id)
        assert (status, str(envelope).count("task_not_cancellable")) == (400, 1)
        running = await put(session, site.urls[0], "foreign", fault="hang")
        assert (await cancel(session, site.urls[1], running, THEIRS))[0] == 404
        assert (await cancel(session, site.urls[1], task_id[:-6] + "999999"))[0] == 404
        assert (await cancel(session, site.urls[1], "no-id"))[0] == 404
        assert await cancel(session, site.urls[1], running) == (202, running)


async def test_cancel_works_after_restarts_of_streams_and_dispatcher(site: Site) -> None:
    async with aiohttp.ClientSession() as session:
        task_id = await put(session, site.urls[0], "streams-restart", fault="hang")
        await eventually_async(lambda: site.arrivals("streams-restart"))
        site.streams.kill()
        asking = asyncio.create_task(cancel(session, site.urls[1], task_id))
        site.streams.start()
        assert await asking == (202, task_id)
        await eventually_async(lambda: site.closed_ms("streams-restart"), within_s=40, what="the closing of the call")
        orphan = await put(session, site.urls[0], "dispatcher-restart", fault="hang")
        await eventually_async(lambda: site.probe.row_states[orphan][-1:] == ["processing"], within_s=40)
        site.dispatcher.kill()
        assert await cancel(session, site.urls[1], orphan) == (202, orphan)
        site.dispatcher.start()
        await runs_through(session, site, "after-restarts")
    assert (outcomes(site, task_id), outcomes(site, orphan)) == (["cancelled"], ["cancelled"])
    assert (site.arrivals("streams-restart"), site.arrivals("dispatcher-restart")) == (1, 1)


@pytest.mark.parametrize("mode", ["blocking", "streaming"])
async def test_a_client_that_goes_away_cancels(site: Site, mode: str) -> None:
    name = f"leaves-{mode}"
    async with aiohttp.ClientSession() as session:
        body = put_body(name, mode, **({"fault": "hang"} if mode == "blocking" else {"tokens": 500, "token_ms": 100}))
        asking = asyncio.create_task(session.post(f"{site.urls[0]}/v1/queue/put", json=body, headers=MINE))
        await eventually_async(lambda: site.arrivals(name))
        asking.cancel()
        if mode == "streaming" and asking.done():
            asking.result().close()
    await eventually_async(lambda: site.closed_ms(name), within_s=5, what="the closing of the call")
