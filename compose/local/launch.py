"""Start, supervise and stop a planned stack."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import time
from collections.abc import Callable, Mapping
from typing import Any

from compose.local.errors import LocalStackError
from compose.local.plan import STOP_STAGES, Plan, UpOptions, make_plan, read_settings
from compose.local.ports import LOOPBACK
from compose.local.process import open_log
from compose.local.readiness import until_ok
from compose.local.stack import StackFolder
from compose.local.supervisor import Child, Supervisor
from core.errors import Unavailable
from core.observability.transient_errors import TransientErrors

logger = logging.getLogger(__name__)

BROKER_LIMIT_S = 60.0
TOPICS_LIMIT_S = 30.0
REGISTRY_LIMIT_S = 10.0
POLL_S = 0.1
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

Say = Callable[[str], None]


def run_stack(flags: UpOptions, *, say: Say) -> None:
    """Start a stack, run it until a signal, and stop it; raises if it could not start."""
    began = time.monotonic()
    settings = read_settings(flags)
    folder = StackFolder(settings.data_dir)
    with folder.owned():
        log = folder.log("supervisor")
        open_log(log).close()
        logging.basicConfig(filename=log, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
        for handler in logging.getLogger().handlers:
            handler.addFilter(TransientErrors())
        say(f"starting; records and logs are in {folder.path}")
        plan = make_plan(flags, settings, folder)
        asyncio.run(_run(plan, _prepare_broker(plan, say), say=say, began=began))


async def _run(plan: Plan, broker: Child | None, *, say: Say, began: float) -> None:
    await Launch(plan, broker, say=say, began=began).run()


def _prepare_broker(plan: Plan, say: Say) -> Child | None:
    """Download, format and configure the embedded broker; returns its command line.

    Nothing runs yet that needs a clean stop, so a signal ends the process immediately: a download in another thread
    would delay a clean exit.
    """
    if plan.broker is None:
        return None
    before = {number: signal.signal(number, _leave) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        command = plan.broker.command(say)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    log = plan.folder.log("broker")
    return Child(name="broker", argv=command, env=plan.environ, log=log, stop_stage=STOP_STAGES["broker"])


def _leave(number: int, _: object) -> None:
    os._exit(128 + number)


class Launch:
    """One run of a stack."""

    def __init__(self, plan: Plan, broker: Child | None, *, say: Say, began: float) -> None:
        self._plan = plan
        self._broker = broker
        self._say = say
        self._began = began
        self._stop = asyncio.Event()
        self._supervisor = Supervisor(changed=self._publish, report=say)

    async def run(self) -> None:
        """Run until the stack has been stopped; raises if it could not start, after stopping all processes."""
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:  # nohup
                loop.add_signal_handler(number, self._on_signal)
        stopped: asyncio.Future[Any] = asyncio.create_task(self._stop.wait(), name="wait for a signal")
        coming_up: asyncio.Future[Any] = asyncio.create_task(self._start_all(), name="come up")
        ends = {stopped, self._supervisor.failed}
        try:
            await asyncio.wait({coming_up, *ends}, return_when=asyncio.FIRST_COMPLETED)
            if coming_up.done():
                coming_up.result()
                await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if self._supervisor.failed.done():
                self._supervisor.failed.result()
        finally:
            stopped.cancel()
            coming_up.cancel()
            self._say("stopping")
            await asyncio.gather(self._supervisor.stop(), coming_up, return_exceptions=True)
            for number in SIGNALS:
                loop.remove_signal_handler(number)

    def _on_signal(self) -> None:
        if self._stop.is_set():  # a second signal: stop immediately
            self._supervisor.kill()
        self._stop.set()

    def _publish(self, pids: Mapping[str, int]) -> None:
        plan = self._plan
        logs = {"broker": plan.broker.log} if plan.broker else {}
        roles = {
            name: {"pid": pid, "log": str(logs.get(name, plan.folder.log(name)))}
            | ({"metrics": plan.metrics[name]} if name in plan.metrics else {})
            for name, pid in pids.items()
        }
        stack = {
            "url": plan.url,
            "kafka": plan.settings.kafka.bootstrap,
            "upstreams": plan.settings.upstream.urls,
            "pid": os.getpid(),
            "roles": roles,
        }
        try:
            plan.folder.publish(stack)
        except OSError as error:  # a full disk must not take the stack down with it
            self._say(f"cannot write stack.json: {error.strerror}")

    async def _start_all(self) -> None:
        # Concurrently: the roles wait for Kafka themselves, and their imports take as long as the broker's start.
        for child in (*([self._broker] if self._broker else []), *self._plan.children):
            self._supervisor.add(child)
        if self._broker:
            await self._broker_answers()
        await self._apply_topics()
        checks = {"ingress": f"{self._plan.url}/readyz"}
        if self._plan.model_port:
            checks["model"] = f"http://{LOOPBACK}:{self._plan.model_port}/health"
        await until_ok(checks, self._progress)
        self._supervisor.give_up_on_quick_deaths = False
        self._announce()

    async def _broker_answers(self) -> None:
        broker = self._plan.broker
        assert broker is not None  # noqa: S101 - for the type checker: there is a child made from it
        give_up = time.monotonic() + BROKER_LIMIT_S
        while not await asyncio.to_thread(broker.is_ready):
            late = time.monotonic() > give_up
            if late or self._supervisor.deaths["broker"]:
                what = f"does not answer after {BROKER_LIMIT_S:.0f} s" if late else "ended while it started"
                reason = broker.last_error(self._plan.folder.log("broker"))
                raise LocalStackError(f"the broker {what}: {reason}; see {broker.log}")
            await asyncio.sleep(POLL_S)
        self._progress(f"Kafka answers at {broker.bootstrap}")

    async def _apply_topics(self) -> None:
        from core.kafka.admin import apply_topics, wait_for_broker  # noqa: PLC0415 - imported while the broker starts

        settings = self._plan.settings
        give_up = time.monotonic() + TOPICS_LIMIT_S
        await wait_for_broker(settings, timeout_s=TOPICS_LIMIT_S)
        while True:
            try:
                changes = await apply_topics(settings)
                break
            except Unavailable:  # a broker that has just started may still be electing leaders
                if time.monotonic() > give_up:
                    raise
                await asyncio.sleep(POLL_S)
        if changes:
            self._progress(f"topics: {len(changes)} changes applied")
        if settings.kafka.registry_url:
            await self._register_schemas()

    async def _register_schemas(self) -> None:
        from core.schema_registry.register import register_schemas  # noqa: PLC0415 - few have a registry of their own

        try:
            await register_schemas(self._plan.settings, say=self._progress, retry_timeout_s=REGISTRY_LIMIT_S)
        except Unavailable as error:  # no role needs it, so tasks must not wait for it
            self._progress(f"{error.message}; continuing, run `headrace topics apply` when it is available")

    def _progress(self, text: str) -> None:
        self._say(f"[{time.monotonic() - self._began:5.1f} s] {text}")

    def _announce(self) -> None:
        plan = self._plan
        seconds = time.monotonic() - self._began
        messages = [{"role": "user", "content": "Say hello"}]
        task = {
            "queue": "demo",
            "endpoint": "/v1/chat/completions",
            "response_mode": "blocking",
            "data": {"model": plan.example_model, "messages": messages, "max_tokens": 20},
        }
        self._say(f"\nheadrace is ready at {plan.url} after {seconds:.1f} s\n")
        self._say(f"  curl -s {plan.url}/v1/queue/put -H 'Authorization: Bearer {plan.example_key}' \\")
        self._say(f"    -H 'Content-Type: application/json' \\\n    -d '{json.dumps(task)}'\n")
        self._say(f"  the API:   {plan.url}/docs")
        self._say(f"  the logs:  {plan.folder.path}/logs\n  Ctrl-C stops everything")
