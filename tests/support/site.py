"""An installation as processes: ingresses, schedulers and a dispatcher before a simulated model server."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp

from bench.simulator import Simulator
from core.settings.models import Settings
from tests.support.kafka import compress, declared_topics
from tests.support.ports import free_port
from tests.support.roles import Role, running, settings_for
from tests.support.waiting import until

CHAT = "/v1/chat/completions"
LEVELS = ("online", "offline")
READY_S = 150
PATIENT = aiohttp.ClientTimeout(total=150)


class Site:
    """The processes, and the model server that they call.

    The roles are called `ingress-0`, `ingress-1`, …, `online`, `offline` and `dispatcher`. One that ends itself is
    started again; one that a test kills or stops stays down until the test starts it.
    """

    def __init__(
        self, settings: Settings, env: Mapping[str, str], simulator: Simulator, http: aiohttp.ClientSession
    ) -> None:
        self.settings, self.env, self.simulator, self.http = settings, env, simulator, http
        self.urls: list[str] = []
        self.roles: dict[str, Role] = {}

    def begin(self, stack: ExitStack, name: str) -> None:
        """Run a role until the stack is closed."""
        kind = name.split("-", 1)[0]
        if kind == "ingress":
            port = free_port()
            self.urls.append(f"http://127.0.0.1:{port}")
            arguments = ["ingress", "--port", str(port)]
        else:
            arguments = ["streams", "--level", kind] if kind in LEVELS else [kind]
        log = self.settings.data_dir / f"{name}.log"
        self.roles[name] = stack.enter_context(running(*arguments, env=self.env, log=log))

    @asynccontextmanager
    async def more(self, *names: str) -> AsyncIterator[None]:
        """Run further roles for the length of a block: `ingress-2`, `online-2`, `dispatcher-2`."""
        urls, roles = list(self.urls), dict(self.roles)
        with ExitStack() as stack:
            for name in names:
                self.begin(stack, name)
            await self.ready()
            await self.shared_out()
            yield
            await asyncio.gather(*map(self.stop, names))
        self.urls, self.roles = urls, roles
        await self.shared_out()

    async def shared_out(self) -> None:
        """Return when the schedulers and dispatchers that run share all the work, and nobody else is heard of."""
        names = [name.split("-", 1)[0] for name in self.roles]
        everywhere = set(range(self.settings.kafka.partitions))

        async def differing() -> Any:
            async with Client(self, "admins").call("GET", "/v1/admin/workers") as answer:
                found = await answer.json()
            wrong = [found] if len(found["dispatchers"]) != names.count("dispatcher") else []
            for level in LEVELS:
                owned = [one["partitions"] for one in found["schedulers"] if one["level"] == level]
                shared = len(owned) == names.count(level) and sum(map(len, owned)) == len(everywhere)
                if not shared or not all(owned) or set().union(*owned) != everywhere:
                    wrong.append(owned)
            return wrong

        await until(differing, lambda wrong: not wrong, within_s=READY_S, poll_s=0.1)

    async def ready(self) -> None:
        """Return when every ingress finds that the whole path works, of the levels that run."""
        absent = [f"no heartbeat from the {level} scheduler" for level in LEVELS if level not in self.roles]
        await asyncio.gather(*(until_ready(self.http, url, absent=absent) for url in self.urls))

    async def stop(self, name: str) -> None:
        """Stop a role with SIGTERM, and see that it ends well."""
        code = await asyncio.to_thread(self.roles[name].stop)
        assert code == 0, f"{name} ended with {code}: {self.roles[name].log[-2_000:]}"

    async def restart(self, name: str) -> None:
        """Kill a role, start it and return when it is ready."""
        self.roles[name].kill()
        self.roles[name].start()
        await self.ready()

    def arrivals(self, key: str) -> int:
        """Count the calls of one key at the model server."""
        keys = self.simulator.stats.keys
        return keys[key].arrivals if key in keys else 0

    def running(self, key: str) -> int:
        """Count the calls of one key that the model server has not answered yet."""
        found = self.simulator.stats.keys.get(key)
        return 0 if found is None else found.arrivals - found.completed - len(found.disconnect_ms)

    def closed_ms(self, key: str) -> list[int]:
        """Return when connections of one key were closed before their answer."""
        keys = self.simulator.stats.keys
        return keys[key].disconnect_ms if key in keys else []


class Answer(NamedTuple):
    """What a put is answered with."""

    status: int
    body: bytes
    task_id: str

    @property
    def json(self) -> Any:
        """Read the body."""
        return json.loads(self.body)

    @property
    def frames(self) -> list[bytes]:
        """Return the data of a streamed answer."""
        return [line[6:] for line in self.body.split(b"\n") if line.startswith(b"data: ")]


class Client:
    """A tenant at a site, with one queue: the calls of the queue API that tests need."""

    def __init__(self, site: Site, tenant: str, queue: str | None = None) -> None:
        self.site, self.queue = site, queue or tenant
        self.headers = {"Authorization": f"Bearer sk-{tenant}"}

    def call(
        self, method: str, path: str, *, at: int = 0, headers: Mapping[str, str] | None = None, **given: Any
    ) -> Any:
        """Send a request to one of the ingresses; to be entered, as those of aiohttp."""
        url = f"{self.site.urls[at % len(self.site.urls)]}{path}"
        return self.site.http.request(method, url, headers={**self.headers, **(headers or {})}, **given)

    def body(
        self,
        *,
        mode: str = "callback",
        level: int = 0,
        text: str = "hello",
        members: Mapping[str, Any] | None = None,
        **sim: Any,
    ) -> dict[str, Any]:
        """Build the body of a put; `sim` says how the model server behaves."""
        data = {"model": "sim", "messages": [{"role": "user", "content": text}], "sim": sim}
        put = {"queue": self.queue, "endpoint": CHAT, "response_mode": mode, "level": level, "data": data}
        return {**put, **(members or {})}

    async def put(self, *, at: int = 0, headers: Mapping[str, str] | None = None, **given: Any) -> Answer:
        """Put a task and return the whole answer."""
        async with self.call("POST", "/v1/queue/put", at=at, headers=headers, json=self.body(**given)) as answer:
            return Answer(answer.status, await answer.read(), answer.headers.get("x-task-id", ""))

    async def submit(self, *, at: int = 0, **given: Any) -> str:
        """Put a task that nobody waits for and return its id."""
        answer = await self.put(at=at, **given)
        assert answer.status == 200, answer.body
        assert answer.json["data"] == answer.task_id
        return answer.task_id

    async def show(self, task_id: str, *, at: int = 0) -> dict[str, Any]:
        """Get a task."""
        return (await until(lambda: self._look_up(task_id, at), lambda seen: seen[0] != 503, poll_s=0.5))[1]

    async def _look_up(self, task_id: str, at: int) -> tuple[int, dict[str, Any]]:
        async with self.call("GET", f"/v1/queue/{task_id}", at=at) as answer:
            found: dict[str, Any] = await answer.json()
            # 503 is retried, as every client has to: on a busy machine Kafka may not answer a look-up in time.
            assert answer.status in (200, 503), found
            return answer.status, found

    async def ended(self, task_id: str, *, at: int = 0) -> dict[str, Any]:
        """Get a task once it has ended; what one ingress knows, another learns a moment later."""
        return await until(lambda: self.show(task_id, at=at), lambda task: task["status"] not in ("waiting", "queued"))

    async def cancel(self, task_id: str, *, at: int = 0) -> tuple[int, Any]:
        """Ask for the end of a task."""
        async with self.call("POST", f"/v1/queue/{task_id}/cancel", at=at) as answer:
            return answer.status, await answer.json()


def keys_file(*tenants: str, admins: Sequence[str] = ()) -> str:
    """Write a keys file: each tenant has the key sk-TENANT."""
    lines = [f'[[tenants.{tenant}.keys]]\nkey = "sk-{tenant}"\n' for tenant in (*tenants, *admins)]
    scopes = 'scopes = ["submit", "read", "admin"]\n'
    return "".join(line + scopes * (number >= len(tenants)) for number, line in enumerate(lines))


@asynccontextmanager
async def running_site(
    kafka: str,
    folder: Path,
    *,
    ingresses: int = 2,
    levels: Sequence[str] = LEVELS,
    keys: str = "",
    env: Mapping[str, str] | None = None,
    **settings: object,
) -> AsyncIterator[Site]:
    """Run all roles on topics of their own, and give them once they are ready.

    `keys` is the text of the keys file, `env` is added to the environment of the processes, and the others are settings
    with __ for the dot.
    """
    if keys:
        settings["auth__keys_file"] = str(folder / "keys.toml")
        (folder / "keys.toml").write_text(keys)
    async with AsyncExitStack() as stack:
        simulator = await stack.enter_async_context(Simulator())
        made, environment = settings_for(
            kafka, folder, f"{folder.name}-{time.time_ns()}.", **{"upstream__urls": [simulator.url], **settings}
        )
        await stack.enter_async_context(declared_topics(made))
        await compress(made)
        connector = aiohttp.TCPConnector(limit=0)
        http = await stack.enter_async_context(aiohttp.ClientSession(timeout=PATIENT, connector=connector))
        site = Site(made, {**environment, **(env or {})}, simulator, http)
        processes = stack.enter_context(ExitStack())
        for name in (*levels, "dispatcher", *(f"ingress-{number}" for number in range(ingresses))):
            site.begin(processes, name)
        await site.ready()
        yield site


async def until_ready(http: aiohttp.ClientSession, url: str, *, absent: Sequence[str] = ()) -> None:
    """Wait until an ingress finds the whole path; what begins as one of `absent` may be missing."""

    async def missing() -> list[str]:
        try:
            async with http.get(f"{url}/readyz") as answer:
                sentences: list[str] = (await answer.json())["missing"]
        except aiohttp.ClientError as error:
            return [str(error) or type(error).__name__]
        return [one for one in sentences if not one.startswith(tuple(absent))]

    await until(missing, lambda sentences: not sentences, within_s=READY_S, poll_s=0.1)
