"""Callbacks over their whole life: signed, tried again, switched off, shown, sent again; on a real broker."""

from __future__ import annotations

import asyncio
import base64
import itertools
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiokafka import TopicPartition
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from standardwebhooks import Webhook, WebhookVerificationError

from core.kafka.producer import Record
from core.kafka.tail import Records, Tail
from core.settings import Settings
from dispatcher.webhooks import delays
from dispatcher.webhooks.news import EVERY_MS
from dispatcher.webhooks.sender import GROUP, NEWS_GROUP
from headrace.main import main
from schemas import topics
from schemas.codec import DELIVERY
from schemas.records import Delivery, Status
from streams.outputs import status_record
from tests.support.bella import row_of
from tests.support.dispatcher_probe import DispatcherProbe, dispatching, now_ms
from tests.support.receiver import Receiver
from tests.support.roles import settings_for
from tests.support.waiting import eventually_async

RESULTS = [topics.results(0), topics.results(1)]
RETRIES = [topics.retry(delay_s) for delay_s in topics.RETRY_DELAYS_S]
OLD, NEW, OTHERS = (f"whsec_{base64.b64encode(bytes([n]) * 32).decode()}" for n in (1, 2, 3))
SEED = bytes([4]) * 32
_prefixes = itertools.count()


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with Receiver() as made:
        yield made


@pytest.fixture
def env() -> dict[str, str]:
    return {}


@pytest.fixture
def settings(kafka: str, tmp_path: Path, env: dict[str, str]) -> Settings:
    prefix = f"rounds{next(_prefixes)}-{time.time_ns()}."
    made, variables = settings_for(
        kafka, tmp_path, prefix, kafka__partitions=2, kafka__work_partitions=1, dispatcher__grace_s=1,
        dispatcher__only="webhooks", webhooks__retry_delays=[0.1, 0.1, 0.1], webhooks__timeout_s=1,
        webhooks__secret=[NEW, OLD, f"whsk_{base64.b64encode(SEED).decode()}"],
        webhooks__tenant_secrets=[f"key-other={OTHERS}"], webhooks__max_body_bytes=20_000,
    )  # fmt: skip
    env |= variables
    return made


class Rows:
    """The newest row of each delivery."""

    def __init__(self, settings: Settings) -> None:
        self.of: dict[str, Delivery] = {}
        self.tail = Tail(settings, name="rows", topics=[settings.topic(topics.DELIVERIES)], handle=self.take)

    def take(self, _: TopicPartition, records: Records) -> None:
        for record in records:
            self.of[(record.key or b"").decode()] = DELIVERY.decode(record.value or b"")

    def state(self, task_id: str, event: str = "completed") -> str | None:
        row = self.of.get(f"{task_id}/{event}")
        return row and row["state"]


@pytest.fixture
async def rows(probe: DispatcherProbe, settings: Settings) -> AsyncIterator[Rows]:
    made = Rows(settings)
    await made.tail.open()
    yield made
    await made.tail.close()


async def command(env: dict[str, str], *arguments: str) -> str:
    """Run `headrace webhooks`; in a thread, because it has an event loop of its own."""
    run = await asyncio.to_thread(CliRunner().invoke, main, ["webhooks", *arguments], env=env)
    assert run.exit_code == 0, run.output
    return run.output


async def settled(probe: DispatcherProbe) -> None:
    """Wait until the sender has committed all it was given."""
    await probe.committed(GROUP, *RESULTS)
    await probe.committed(delays.GROUP, *RETRIES)


async def test_every_attempt_is_signed_for_the_stock_verifier(
    probe: DispatcherProbe, receiver: Receiver, settings: Settings
) -> None:
    async with dispatching(settings):
        ours = await probe.result(
            f"{receiver.root}/500-then-503-then-200", owner="key-one", body='{"text":"\u00fc"}'.encode()
        )
        theirs = await probe.result(f"{receiver.root}/200", owner="key-other")
        await eventually_async(lambda: len(receiver.calls[ours]) == 3 and receiver.calls[theirs], what="the callbacks")
        await settled(probe)
    assert {call.headers["webhook-id"] for call in receiver.calls[ours]} == {f"{ours}-completed"}
    assert {call.headers["x-headrace-event"] for call in receiver.calls[ours]} == {"completed"}
    for call in receiver.calls[ours]:
        for secret in (OLD, NEW):
            assert Webhook(secret).verify(call.body, call.headers)["request_id"] == ours
        with pytest.raises(WebhookVerificationError):
            Webhook(OTHERS).verify(call.body, call.headers)
        signatures = dict(part.split(",") for part in call.headers["webhook-signature"].split())
        content = f"{call.headers['webhook-id']}.{call.headers['webhook-timestamp']}.".encode() + call.body
        key = Ed25519PrivateKey.from_private_bytes(SEED).public_key()
        key.verify(base64.b64decode(signatures["v1a"]), content)
    [call] = receiver.calls[theirs]
    assert Webhook(OTHERS).verify(call.body, call.headers)
    assert len(call.headers["webhook-signature"].split()) == 1, "a tenant's own keys stand alone"


async def test_every_attempt_is_in_the_row(
    probe: DispatcherProbe, receiver: Receiver, settings: Settings, rows: Rows
) -> None:
    async with dispatching(settings):
        task = await probe.result(f"{receiver.root}/500-then-busy-then-200")
        await eventually_async(lambda: rows.state(task) == "delivered", what="the delivery")
        await settled(probe)
    row = rows.of[f"{task}/completed"]
    assert [each["status_code"] for each in row["attempts"]] == [500, 429, 200]
    assert row["made"] == 3
    assert row["due_ms"] is None
    assert row["attempts"][2]["at_ms"] - row["attempts"][1]["at_ms"] >= 1000, "Retry-After was longer than the ladder"
    assert row["attempts"][1]["at_ms"] - row["attempts"][0]["at_ms"] >= 100


async def test_liars_and_babblers(probe: DispatcherProbe, receiver: Receiver, settings: Settings, rows: Rows) -> None:
    async with dispatching(settings):
        lie, flood = [await probe.result(f"{receiver.root}/{path}") for path in ("lie", "flood")]
        nonsense = await probe.result(f"{receiver.root}/nonsense-then-200")
        await eventually_async(lambda: {rows.state(one) for one in (lie, flood, nonsense)} == {"delivered"})
        await settled(probe)
    assert [len(receiver.got[one]) for one in (lie, flood, nonsense)] == [1, 1, 2]


async def test_410_switches_a_url_off_for_its_tenant_across_restarts_until_a_resend_goes_through(
    probe: DispatcherProbe, receiver: Receiver, settings: Settings, rows: Rows, env: dict[str, str]
) -> None:
    url = f"{receiver.root}/410-then-200"
    async with dispatching(settings):
        first = await probe.result(url, owner="key-one")
        await eventually_async(lambda: rows.state(first) == "disabled", what="the mark")
    async with dispatching(settings):
        second = await probe.result(url, owner="key-one")
        foreign = await probe.result(url, owner="key-two")
        other = await probe.result(f"{receiver.root}/200", owner="key-one")
        await eventually_async(lambda: (rows.state(second), rows.state(other)) == ("disabled", "delivered"))
        await eventually_async(lambda: receiver.got[foreign], what="the call of another tenant")
        assert receiver.got[second] == []
        run = await command(env, "resend", first)
        assert run == f"{first}-completed is sent again.\n"
        await eventually_async(lambda: rows.state(first) == "delivered", what="the resend")
        third = await probe.result(f"{receiver.root}/410-then-200", owner="key-one", state="failed")
        await eventually_async(lambda: len(receiver.got[third]) == 1, what="the URL is called again")
        await settled(probe)
    assert [letter.key.decode() for letter in probe.letters].count(second) == 1


async def test_what_was_given_up_can_be_redriven(
    probe: DispatcherProbe, receiver: Receiver, settings: Settings, rows: Rows, env: dict[str, str]
) -> None:
    async with dispatching(settings):
        by_command = await probe.result(f"{receiver.root}/404-then-200")
        by_letter = await probe.result(f"{receiver.root}/404-then-200", owner="key-two")
        await eventually_async(lambda: len(probe.letters) == 2, what="the dead letters")
        letter = next(each for each in probe.letters if each.key.decode() == by_letter)
        headers = dict(letter.headers)
        assert headers["x-topic"].decode() == settings.topic(topics.retry(0))
        listed = await command(env, "list", "--state", "failed", "--json")
        assert {each["task_id"] for each in orjson.loads(listed)} == {by_command, by_letter}
        # What any redrive of dead letters does: the value back to where it came from.
        target = (headers["x-topic"].decode(), int(headers["x-partition"]))
        await probe.producer.send(*target, Record(letter.key, letter.value))
        await eventually_async(lambda: rows.state(by_letter) == "delivered", what="the redriven letter")
        dry = await command(env, "redrive", "--dry-run")
        assert dry == "1 callbacks would be sent again.\n"
        run = await command(env, "redrive", "--host", "127.0.0.1")
        assert run == "1 callbacks are sent again.\n"
        await eventually_async(lambda: rows.state(by_command) == "delivered", what="the redriven row")
        await settled(probe)
    assert rows.of[f"{by_command}/completed"]["made"] == 2


async def test_a_large_result_is_a_link(probe: DispatcherProbe, receiver: Receiver, settings: Settings) -> None:
    async with dispatching(settings):
        large = await probe.result(f"{receiver.root}/200", body=orjson.dumps("x" * 20_000))
        small = await probe.result(f"{receiver.root}/200", body=orjson.dumps("x" * 19_000))
        await eventually_async(lambda: receiver.got[large] and receiver.got[small], what="both callbacks")
    assert receiver.got[large] == [
        {
            "status_code": 200,
            "request_id": large,
            "body": None,
            "body_url": f"http://127.0.0.1:8080/v1/queue/{large}",
            "body_bytes": 20_002,
        }
    ]
    assert receiver.got[small][0]["body"] == "x" * 19_000


async def put_row(probe: DispatcherProbe, task_id: str, url: str, events: list[str], **changes: Any) -> None:
    """Write what the scheduler writes when a task moves on."""
    task: Any = {
        "id": task_id, "queue": "chat", "endpoint": "/v1/x", "mode": "callback", "owner": "key-one", "model": None,
        "callback_url": url, "trace_id": None, "created_ms": now_ms(), "timeout_ms": 60_000,
    }  # fmt: skip
    row: Status = row_of(task, 0, **{"callback_events": events, "updated_ms": 0, **changes})
    topic = probe.settings.topic(topics.status(0))
    await probe.producer.send(topic, int(task_id.split("-")[-2]), status_record(row, now_ms=now_ms()))


async def test_those_who_ask_are_told_of_the_start_and_the_way(
    probe: DispatcherProbe, receiver: Receiver, settings: Settings, rows: Rows
) -> None:
    url, events = f"{receiver.root}/200", ["start", "progress", "expired"]
    asks, quiet = "TASK-7-0-C-261118110640-0001-000901", "TASK-7-0-C-261118110640-0001-000902"
    running: dict[str, Any] = {"state": "processing", "started_ms": now_ms()}
    async with dispatching(settings):
        for progress in (0, 10, 11, 12):
            await put_row(probe, asks, url, events, progress=progress, **running)
            await put_row(probe, quiet, url, ["completed"], progress=progress, **running)
        await eventually_async(lambda: len(receiver.got[asks]) == 2, what="start and progress")
        told_ms = now_ms()
        await eventually_async(lambda: now_ms() - told_ms > EVERY_MS + 100, what="half a second")
        await put_row(probe, asks, url, events, progress=60, **running)
        await eventually_async(lambda: len(receiver.got[asks]) == 3, what="more progress")
        ended = running | {"state": "expired", "finished_ms": now_ms() + 5_000}
        await put_row(probe, asks, url, events, progress=100, **ended)
        unasked = await probe.result(url, callback_events=["failed"])
        outcome = await probe.result(url, callback_events=["start", "completed"])
        await eventually_async(lambda: len(receiver.got[asks]) == 4 and receiver.got[outcome], what="the end")
        await probe.committed(NEWS_GROUP, topics.status(0))
        await settled(probe)
    told = sorted((each["event"], each["body"]["progress"]) for each in receiver.got[asks])
    assert told == [("expired", 100), ("progress", 10), ("progress", 60), ("start", 0)]
    assert {call.headers["webhook-id"] for call in receiver.calls[asks]} == {
        f"{asks}-start", f"{asks}-progress-1-10", f"{asks}-progress-1-60", f"{asks}-expired",
    }  # fmt: skip
    assert rows.state(asks, "start") == "delivered"
    assert quiet not in receiver.got
    assert unasked not in receiver.got


async def test_a_dead_host_is_left_alone_and_gets_everything_when_it_is_back(
    probe: DispatcherProbe, receiver: Receiver, settings: Settings, rows: Rows
) -> None:
    hooks = settings.webhooks.model_copy(update={"retry_delays": [0.5, 1, 5, 5, 10]})
    patient = settings.model_copy(update={"webhooks": hooks})
    receiver.down = True
    async with Receiver() as alive, dispatching(patient):
        waiting = [await probe.result(f"{receiver.root}/200") for _ in range(120)]
        await eventually_async(lambda: len(rows.of) == len(waiting), what="a row for each")
        refused = receiver.broken_off
        assert refused < len(waiting), "a host that fails every time is not called every time"
        other = await probe.result(f"{alive.root}/200")
        await eventually_async(lambda: alive.got[other], within_s=5, what="another host")
        receiver.down = False
        await eventually_async(lambda: all(rows.state(one) == "delivered" for one in waiting), within_s=60)
        await settled(probe)
    assert {len(receiver.got[one]) for one in waiting} == {1}
    assert probe.letters == []


async def test_a_wait_outlives_the_sender(
    probe: DispatcherProbe, receiver: Receiver, settings: Settings, rows: Rows
) -> None:
    hooks = settings.webhooks.model_copy(update={"retry_delays": [7]})
    slow = settings.model_copy(update={"webhooks": hooks})
    async with dispatching(slow):
        task = await probe.result(f"{receiver.root}/500-then-200")
        await eventually_async(lambda: rows.state(task) == "pending", what="the failed attempt")
        await probe.committed(GROUP, *RESULTS)
    async with dispatching(slow):
        await eventually_async(lambda: rows.state(task) == "delivered", within_s=40, what="the second attempt")
        await settled(probe)
    first, second = rows.of[f"{task}/completed"]["attempts"]
    assert second["at_ms"] - first["at_ms"] >= 7_000
    assert len(receiver.got[task]) == 2
