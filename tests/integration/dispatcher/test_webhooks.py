"""Callbacks of one sender on a real broker: signed, tried again, given up, shown, sent again."""

from __future__ import annotations

import base64
from itertools import pairwise
from typing import Any

import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from standardwebhooks import Webhook, WebhookVerificationError

from core.kafka.producer import Record
from core.settings.models import Settings
from core.storage.blobs import open_blobs
from dispatcher.webhooks.notifications import MIN_INTERVAL_MS
from dispatcher.webhooks.service import STATUS_GROUP
from schemas import topics
from schemas.records import Status
from streams.outputs import status_record
from tests.support.bella import row_of
from tests.support.dispatcher_probe import DispatcherProbe, now_ms
from tests.support.receiver import Receiver
from tests.support.waiting import eventually_async
from tests.support.webhook_probe import DeliveryRows, settled, webhooks_command

OLD, NEW, OTHERS = (f"whsec_{base64.b64encode(bytes([n]) * 32).decode()}" for n in (1, 2, 3))
SEED = bytes([4]) * 32

pytestmark = pytest.mark.usefixtures("dispatcher")


@pytest.fixture(scope="module")
def changes() -> dict[str, object]:
    """Sign with several keys, try again soon, and post small bodies only."""
    return {
        "dispatcher__component": "webhooks",
        "dispatcher__shutdown_grace_s": 1,
        "dispatcher__commit_interval_s": 0.2,
        "webhooks__retry_delays": [0.1, 0.1],
        "webhooks__secret": [NEW, OLD, f"whsk_{base64.b64encode(SEED).decode()}"],
        "webhooks__tenant_secrets": [f"key-other={OTHERS}"],
        "webhooks__max_body_bytes": 20_000,
    }


async def test_the_callback_is_as_bella_clients_read_it(
    probe: DispatcherProbe, settings: Settings, receiver: Receiver
) -> None:
    blob = await open_blobs(settings).put(b'{"large":true}', name="results/x", media_type="application/json")
    plain = await probe.result(f"{receiver.root}/200")
    await probe.result(None)
    batch = await probe.result(f"{receiver.root}/200", mode="batch")
    offline = await probe.result(f"{receiver.root}/200", level=1, body=b"no json")
    large = await probe.result(f"{receiver.root}/200", body=None, body_ref=blob)
    late = await probe.result(f"{receiver.root}/200", body=None, state="failed", status_code=408, error_code="timeout")
    await eventually_async(lambda: len(receiver.got) == 4, what="four callbacks")
    await settled(probe)
    assert receiver.got[plain] == [{"status_code": 200, "request_id": plain, "body": {"ok": True}}]
    assert receiver.got[offline][0]["body"] == "no json"
    assert receiver.got[large][0]["body"] == {"large": True}
    assert receiver.got[late][0]["status_code"] == 408
    assert receiver.got[late][0]["body"]["error"]["code"] == "timeout"
    assert batch not in receiver.got
    assert len(receiver.got) == 4
    assert receiver.headers["content-type"] == "application/json; charset=utf-8"


async def test_what_may_pass_is_tried_again(probe: DispatcherProbe, receiver: Receiver) -> None:
    paths = ["500-then-200", "429-then-503-then-202", "reset-then-200"]
    paths += ["302-then-302-then-200", "404-then-200", "409-then-200", "425-then-200", "401-then-403-then-200"]
    calls = [len(path.split("-then-")) for path in paths]
    ids = [await probe.result(f"{receiver.root}/{path}") for path in paths]
    await eventually_async(lambda: [len(receiver.got[one]) for one in ids] == calls, what="the deliveries")
    await settled(probe)
    assert [len(receiver.got[one]) for one in ids] == calls
    assert not {*ids} & {*probe.dead_letters}


async def test_a_final_failure_is_dead_lettered(probe: DispatcherProbe, settings: Settings, receiver: Receiver) -> None:
    paths = {"400": 3, "404": 3, "307": 3, "500": 3}
    ids = {path: await probe.result(f"{receiver.root}/{path}") for path in paths}
    nobody = await probe.result("http://127.0.0.1:1/")
    given_up = {*ids.values(), nobody}
    await eventually_async(lambda: given_up <= {*probe.dead_letters}, what="the dead letters")
    await settled(probe)
    assert {path: len(receiver.got[one]) for path, one in ids.items()} == paths
    assert {one: len(probe.dead_letters[one]) for one in given_up} == dict.fromkeys(given_up, 1)
    reasons = {one: dict(probe.dead_letters[one][0].headers) for one in given_up}
    assert b"the receiver answered 307" in reasons[ids["307"]]["x-reason"]
    assert reasons[nobody]["x-field"] == b"callback_url"
    assert reasons[nobody]["x-topic"].decode() == settings.topic(topics.retry(0))


async def test_every_attempt_is_signed_for_the_stock_verifier(probe: DispatcherProbe, receiver: Receiver) -> None:
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


async def test_every_attempt_is_in_the_row(probe: DispatcherProbe, receiver: Receiver, rows: DeliveryRows) -> None:
    task = await probe.result(f"{receiver.root}/500-then-busy-then-200")
    await eventually_async(lambda: rows.state(task) == "delivered", what="the delivery")
    await settled(probe)
    row = rows.of[f"{task}/completed"]
    assert [each["status_code"] for each in row["attempts"]] == [500, 429, 200]
    assert row["made"] == 3
    assert row["due_ms"] is None
    waits_ms = [later["at_ms"] - each["at_ms"] for each, later in pairwise(row["attempts"])]
    assert waits_ms[0] >= 100
    assert waits_ms[1] >= 1000, "Retry-After was longer than the retry schedule says"


async def test_endless_bodies_and_wrong_lengths_are_delivered_and_nonsense_is_tried_again(
    probe: DispatcherProbe, receiver: Receiver, rows: DeliveryRows
) -> None:
    lie, flood = [await probe.result(f"{receiver.root}/{path}") for path in ("lie", "flood")]
    nonsense = await probe.result(f"{receiver.root}/nonsense-then-200")
    await eventually_async(
        lambda: {rows.state(one) for one in (lie, flood, nonsense)} == {"delivered"},
        what="the deliveries",
    )
    await settled(probe)
    assert [len(receiver.got[one]) for one in (lie, flood, nonsense)] == [1, 1, 2]


async def test_what_was_given_up_can_be_redriven(
    probe: DispatcherProbe, receiver: Receiver, settings: Settings, rows: DeliveryRows, env: dict[str, str]
) -> None:
    async def failed(*more: str) -> set[str]:
        listed = orjson.loads(await webhooks_command(env, "list", "--state", "failed", "--json", *more))
        assert {each["state"] for each in listed} <= {"failed"}
        return {each["task_id"] for each in listed}

    here = f"127.0.0.1:{receiver.port}"
    by_command = await probe.result(f"{receiver.root}/404-then-404-then-404-then-200")
    by_letter = await probe.result(f"{receiver.root}/404-then-404-then-404-then-200", owner="key-two")
    both = {by_command, by_letter}
    await eventually_async(lambda: both <= {*probe.dead_letters}, what="the dead letters")
    [letter] = probe.dead_letters[by_letter]
    headers = dict(letter.headers)
    assert headers["x-topic"].decode() == settings.topic(topics.retry(0))
    assert await failed("--host", here) == both
    assert both <= await failed("--host", "127.0.0.1") <= await failed()
    # What any redrive of dead letters does: the value back to where it came from.
    target = (headers["x-topic"].decode(), int(headers["x-partition"]))
    await probe.producer.send(*target, Record(letter.key, letter.value))
    await eventually_async(lambda: rows.state(by_letter) == "delivered", what="the redriven letter")
    dry = await webhooks_command(env, "redrive", "--dry-run")
    assert dry == f"{len(await failed())} deliveries would be resent.\n"
    dry = await webhooks_command(env, "redrive", "--dry-run", "--host", here)
    assert dry == "1 deliveries would be resent.\n"
    run = await webhooks_command(env, "redrive", "--host", here)
    assert run == "1 deliveries are resent.\n"
    await eventually_async(lambda: rows.state(by_command) == "delivered", what="the redriven row")
    await settled(probe)
    assert rows.of[f"{by_command}/completed"]["made"] == 4


async def test_a_large_result_is_a_link(probe: DispatcherProbe, receiver: Receiver) -> None:
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


async def put_rows(probe: DispatcherProbe, task_id: str, url: str, events: list[str], *rows: dict[str, Any]) -> None:
    """Write what the scheduler writes when a task moves on, all at once."""
    task: Any = {
        "id": task_id,
        "queue": "chat",
        "endpoint": "/v1/x",
        "mode": "callback",
        "owner": "key-one",
        "model": None,
        "callback_url": url,
        "trace_id": None,
        "created_ms": now_ms(),
        "timeout_ms": 60_000,
    }
    place = (probe.settings.topic(topics.status(0)), int(task_id.split("-")[-2]))
    made: list[Status] = [row_of(task, 0, **{"callback_events": events, "updated_ms": 0, **row}) for row in rows]
    await probe.producer.send_batch({place: [status_record(row, now_ms=now_ms()) for row in made]})


async def test_subscribers_are_notified_of_start_and_progress(
    probe: DispatcherProbe, receiver: Receiver, rows: DeliveryRows
) -> None:
    url, events = f"{receiver.root}/200", ["start", "progress", "expired"]
    asks, quiet = "TASK-7-0-C-261118110640-0001-000901", "TASK-7-0-C-261118110640-0001-000902"
    running: dict[str, Any] = {"state": "processing", "started_ms": now_ms()}
    steps = [{"progress": progress, **running} for progress in (0, 10, 11, 12)]
    await put_rows(probe, asks, url, events, *steps)
    await put_rows(probe, quiet, url, ["completed"], *steps)
    await eventually_async(lambda: len(receiver.got[asks]) == 2, what="start and progress")
    told_ms = now_ms()
    await eventually_async(lambda: now_ms() - told_ms > MIN_INTERVAL_MS + 100, what="half a second")
    await put_rows(probe, asks, url, events, {"progress": 60, **running})
    await eventually_async(lambda: len(receiver.got[asks]) == 3, what="more progress")
    ended = running | {"state": "expired", "finished_ms": now_ms() + 5_000}
    await put_rows(probe, asks, url, events, {"progress": 100, **ended})
    unasked = await probe.result(url, callback_events=["failed"])
    outcome = await probe.result(url, callback_events=["start", "completed"])
    await eventually_async(lambda: len(receiver.got[asks]) == 4 and receiver.got[outcome], what="the end")
    await probe.committed(STATUS_GROUP, topics.status(0))
    await settled(probe)
    told = sorted((each["event"], each["body"]["progress"]) for each in receiver.got[asks])
    assert told == [("expired", 100), ("progress", 10), ("progress", 60), ("start", 0)]
    assert {call.headers["webhook-id"] for call in receiver.calls[asks]} == {
        f"{asks}-start",
        f"{asks}-progress-1-10",
        f"{asks}-progress-1-60",
        f"{asks}-expired",
    }
    assert rows.state(asks, "start") == "delivered"
    assert quiet not in receiver.got
    assert unasked not in receiver.got
