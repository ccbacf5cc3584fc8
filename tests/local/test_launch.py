"""A whole stack with stand-ins for the roles: an HTTP server that answers /readyz, and commands that sleep."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from compose.local import supervisor
from compose.local.errors import LocalStackError
from compose.local.launch import Launch
from compose.local.plan import Plan, UpOptions, make_plan, read_settings
from compose.local.stack import StackFolder
from compose.local.supervisor import Child
from core.kafka.admin import diff_topics
from schemas.codec import registry
from tests.support.ports import free_port
from tests.support.schema_registry import RegistryDouble, schema_registry
from tests.support.waiting import eventually_async, is_alive

READY = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/readyz" else 404)
        self.end_headers()
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""
SLEEP = "import time; time.sleep(600)"
FAIL = "print('no such thing', flush=True); raise SystemExit(1)"

MakePlan = Callable[..., Plan]


@pytest.fixture
def plan(kafka: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakePlan:
    def make(dispatcher: str = SLEEP) -> Plan:
        monkeypatch.setenv("HEADRACE_KAFKA_TOPIC_PREFIX", f"launch-{time.monotonic_ns()}.")
        flags = UpOptions(port=free_port(), data_dir=tmp_path, kafka=kafka, no_model=True)
        folder = StackFolder(tmp_path)
        made = make_plan(flags, read_settings(flags), folder)
        children = [
            ("ingress", [READY, str(made.settings.ingress.port)]),
            ("dispatcher", [dispatcher]),
        ]
        stand_ins = tuple(
            Child(name=name, argv=[sys.executable, "-c", *arguments], env=os.environ, log=folder.log(name))
            for name, arguments in children
        )
        return replace(made, children=stand_ins)

    return make


@asynccontextmanager
async def running(plan: Plan, said: list[str]) -> AsyncIterator[asyncio.Task[None]]:
    """Run a stack and stop it by the signal that Ctrl-C sends."""
    with plan.folder.owned():
        task = asyncio.create_task(Launch(plan, None, say=said.append, began=time.monotonic()).run())
        try:
            yield task
        finally:
            if not task.done():
                os.kill(os.getpid(), signal.SIGINT)
                await asyncio.wait_for(task, 15)


def stack(plan: Plan) -> dict[str, Any]:
    return dict(json.loads((plan.folder.path / "stack.json").read_text()))


async def test_comes_up_says_so_and_goes_down(plan: MakePlan) -> None:
    made = plan()
    said: list[str] = []
    async with running(made, said) as task:
        await eventually_async(lambda: any("ready" in line for line in said) or task.done())
        text = "\n".join(said)
        assert f"ready at {made.url} after " in text
        assert f"curl -s {made.url}/v1/queue/put -H 'Authorization: Bearer hr-local'" in text
        assert f"{made.url}/docs" in text
        assert await diff_topics(made.settings) == []
        published = stack(made)
        assert (published["url"], published["kafka"]) == (made.url, made.settings.kafka.bootstrap)
        pids = {name: role["pid"] for name, role in published["roles"].items()}
        assert set(pids) == {"ingress", "dispatcher"}

        os.kill(pids["dispatcher"], signal.SIGKILL)
        await eventually_async(lambda: stack(made)["roles"]["dispatcher"]["pid"] != pids["dispatcher"])
        pids["again"] = stack(made)["roles"]["dispatcher"]["pid"]
        assert all(is_alive(pids[name]) for name in ("ingress", "again"))
    assert not [name for name, pid in pids.items() if is_alive(pid)]
    assert not (made.folder.path / "stack.json").exists()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL, "the handlers are taken back"


async def test_a_role_that_cannot_start_ends_the_start(plan: MakePlan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "RestartPolicy", partial(supervisor.RestartPolicy, first_delay_s=0.05))
    made = plan(dispatcher=FAIL)
    # Nor does the ingress come up: it must not matter which is noticed first.
    made = replace(made, children=(made.children[1],))
    said: list[str] = []
    async with running(made, said) as task:
        with pytest.raises(LocalStackError, match=r"dispatcher ended 5 times as it started: no such thing; see"):
            await asyncio.wait_for(task, 40)
    assert not [line for line in said if "ready" in line]


async def test_a_cluster_that_does_not_answer_ends_the_start(plan: MakePlan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("compose.local.launch.TOPICS_LIMIT_S", 0.5)
    made = plan()
    dead = f"127.0.0.1:{free_port()}"
    settings = made.settings.model_copy(
        update={"kafka": made.settings.kafka.model_copy(update={"bootstrap": dead, "request_timeout_s": 1})}
    )
    said: list[str] = []
    async with running(replace(made, settings=settings), said) as task:
        with pytest.raises(Exception, match=f"no Kafka broker answers at {dead}"):
            await asyncio.wait_for(task, 20)


async def test_schemas_are_registered_and_a_missing_registry_does_not_prevent_a_start(
    plan: MakePlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("compose.local.launch.REGISTRY_LIMIT_S", 0.5)
    there = RegistryDouble()
    with schema_registry(there):
        monkeypatch.setenv("HEADRACE_KAFKA_REGISTRY_URL", there.url)
        made, said = plan(), list[str]()
        async with running(made, said) as task:
            await eventually_async(lambda: any("ready" in line for line in said) or task.done())
    assert set(there.main.schemas) == set(registry())
    said.clear()
    async with running(made, said) as task:
        await eventually_async(lambda: any("ready" in line for line in said) or task.done())
    assert any("does not answer" in line and "headrace topics apply" in line for line in said)
