"""Every program of examples/, as its users run it, against running roles."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.ports import free_port
from tests.support.site import Client, Site
from tests.support.waiting import until

EXAMPLES = Path(__file__).parents[3] / "examples"
PROGRAMS = sorted(path.name for path in EXAMPLES.glob("*.py"))
WITHIN_S = 120


async def run(name: str, *options: str) -> str:
    """Run a program and return what it printed."""
    command = [sys.executable, str(EXAMPLES / name), *options]
    done = await asyncio.to_thread(
        subprocess.run, command, capture_output=True, text=True, timeout=WITHIN_S, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_program_is_in_the_list() -> None:
    listed = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    assert len(PROGRAMS) == 4
    assert all(f"[{name}]({name})" in listed for name in PROGRAMS)


@pytest.mark.parametrize("name", PROGRAMS)
async def test_help_describes_every_option(name: str) -> None:
    assert "usage: " in await run(name, "--help")


async def test_a_task_over_http_is_delivered_as_a_verified_webhook(site: Site) -> None:
    port, [secret] = free_port(), [one.get_secret_value() for one in site.settings.webhooks.secret]
    receiver = await asyncio.create_subprocess_exec(
        sys.executable,
        str(EXAMPLES / "webhook_receiver.py"),
        "--port",
        str(port),
        env={"WEBHOOK_SECRET": secret},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        await until(lambda: refusal(site, port), lambda status: status == 401)
        options = ["--url", site.urls[0], "--api-key", "sk-examples", "--queue", "examples", "--model", "sim"]
        printed = await run("http_producer.py", "hello", *options, "--callback-url", f"http://127.0.0.1:{port}/done")
        task = json.loads(printed)
        assert task["status"] == "completed"
        assert receiver.stdout is not None
        webhook = json.loads(await asyncio.wait_for(receiver.stdout.readline(), WITHIN_S))
        shown = await Client(site, "examples").show(webhook["request_id"])
        assert (webhook["status_code"], shown["status"]) == (200, "succeeded")
        assert webhook["body"] == shown["result"]["body"]
    finally:
        receiver.kill()
        await receiver.wait()


async def refusal(site: Site, port: int) -> Any:
    """Post something without a signature; return the status, or None while nothing listens."""
    try:
        async with site.http.post(f"http://127.0.0.1:{port}/done", json={}) as answer:
            return answer.status
    except OSError:
        return None


async def test_tasks_written_to_kafka_have_results_in_kafka(site: Site) -> None:
    kafka = site.settings.kafka
    common = ["--bootstrap", kafka.bootstrap, "--prefix", kafka.topic_prefix, "--trace-id", "from-examples"]
    written = ["--queue", "examples", "--model", "sim", "--tenant", "examples", "--level", "online"]
    stored = await run("kafka_producer.py", "one", "two", *common, *written)
    assert stored.count(f"{kafka.topic_prefix}tasks.online partition ") == 2
    read = ["--registry", site.urls[0], "--group", f"{kafka.topic_prefix}examples", "--count", "2"]
    results = [json.loads(line) for line in (await run("result_consumer.py", *common, *read)).splitlines()]
    assert [(one["state"], one["status_code"]) for one in results] == [("completed", 200)] * 2
    assert len({one["id"] for one in results}) == 2
    assert all("choices" in json.loads(one["body"]) for one in results)
