"""The callback sender on a real broker, with receivers that behave and others that do not."""

from __future__ import annotations

import itertools
import socket
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from core.blobs import open_blobs
from core.settings import Settings
from dispatcher.webhooks import resolve
from dispatcher.webhooks.sender import GROUP
from schemas import topics
from tests.support.dispatcher_probe import DispatcherProbe, dispatching
from tests.support.receiver import Receiver
from tests.support.roles import settings_for
from tests.support.waiting import eventually_async

RESULTS = [topics.results(0), topics.results(1)]
_prefixes = itertools.count()


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with Receiver() as made:
        yield made


@pytest.fixture
def settings(kafka: str, tmp_path: Path) -> Iterator[Settings]:
    prefix = f"hooks{next(_prefixes)}-{time.time_ns()}."
    made, _ = settings_for(
        kafka, tmp_path, prefix, kafka__partitions=2, kafka__work_partitions=1, dispatcher__grace_s=1,
        dispatcher__only="webhooks", webhooks__retry_delays=[0.05, 0.05], webhooks__timeout_s=1,
        webhooks__concurrency=8,
    webhooks__per_host=2,
    )  # fmt: skip
    return made  # type: ignore[return-value]


async def test_the_callback_is_as_bella_clients_read_it(
    probe: DispatcherProbe, settings: Settings, receiver: Receiver, tmp_path: Path
) -> None:
    blob = await open_blobs(settings).put(b'{"large":true}', name="results/x", media_type="application/json")
    async with dispatching(settings):
        plain = await probe.result(f"{receiver.root}/200")
        await probe.result(None)
        batch = await probe.result(f"{receiver.root}/200", mode="batch")
        offline = await probe.result(f"{receiver.root}/200", level=1, body=b"no json")
        large = await probe.result(f"{receiver.root}/200", body=None, body_ref=blob)
        late = await probe.result(
            f"{receiver.root}/200", body=None, state="failed", status_code=408, error_code="timeout"
        )
        await eventually_async(lambda: len(receiver.got) == 4, what="four callbacks")
        await probe.committed(GROUP, *RESULTS)
    assert receiver.got[plain] == [{"status_code": 200, "request_id": plain, "body": {"ok": True}}]
    assert receiver.got[offline][0]["body"] == "no json"
    assert receiver.got[large][0]["body"] == {"large": True}
    assert receiver.got[late][0]["status_code"] == 408
    assert receiver.got[late][0]["body"]["error"]["code"] == "timeout"
    assert batch not in receiver.got
    assert receiver.headers["content-type"] == "application/json; charset=utf-8"


async def test_what_may_pass_is_tried_again(probe: DispatcherProbe, settings: Settings, receiver: Receiver) -> None:
    paths = ["500-then-200", "429-then-503-then-202", "reset-then-200", "hang-then-200"]
    async with dispatching(settings):
        ids = [await probe.result(f"{receiver.root}/{path}") for path in paths]
        await eventually_async(lambda: [len(receiver.got[one]) for one in ids] == [2, 3, 2, 2], what="the deliveries")
        await probe.committed(GROUP, *RESULTS)
    assert probe.letters == []


async def test_what_is_final_is_buried(probe: DispatcherProbe, settings: Settings, receiver: Receiver) -> None:
    paths = {"400": 1, "404": 1, "307": 1, "500": 3}
    async with dispatching(settings):
        ids = {path: await probe.result(f"{receiver.root}/{path}") for path in paths}
        nobody = await probe.result("http://127.0.0.1:1/")
        await eventually_async(lambda: len(probe.letters) == 5, within_s=60, what="the dead letters")
        await probe.committed(GROUP, *RESULTS)
    assert {path: len(receiver.got[one]) for path, one in ids.items()} == paths
    reasons = {letter.key.decode(): dict(letter.headers) for letter in probe.letters}
    assert b"the receiver answered 307" in reasons[ids["307"]]["x-reason"]
    assert reasons[nobody]["x-field"] == b"callback_url"
    assert reasons[nobody]["x-topic"].decode() == settings.topic(topics.retry(0))


async def test_a_dead_host_holds_up_nobody_else(probe: DispatcherProbe, settings: Settings, receiver: Receiver) -> None:
    async with Receiver() as dead, dispatching(settings):
        for _ in range(30):
            await probe.result(f"{dead.root}/hang")
        await eventually_async(lambda: dead.holding, what="the first hanging callback")
        alive = [await probe.result(f"{receiver.root}/200") for _ in range(20)]
        began = time.monotonic()
        await eventually_async(lambda: all(receiver.got[one] for one in alive), what="the others")
        assert time.monotonic() - began < 2
        assert dead.holding <= 2 * 2, "one host has its own share of the deliveries"


async def test_an_unfinished_delivery_is_made_after_the_restart_and_what_was_delivered_behind_it_is_not(
    probe: DispatcherProbe, settings: Settings, receiver: Receiver
) -> None:
    patient = settings.model_copy(update={"webhooks": settings.webhooks.model_copy(update={"timeout_s": 30})})
    async with dispatching(patient):
        waiting = await probe.result(f"{receiver.root}/hang-then-200")
        after = [await probe.result(f"{receiver.root}/200") for _ in range(6)]
        await eventually_async(lambda: receiver.holding == 1 and all(receiver.got[one] for one in after))
    assert await probe.uncommitted(GROUP, *RESULTS) >= 3, "the one that hangs holds its partition back"
    async with dispatching(patient):
        await eventually_async(lambda: len(receiver.got[waiting]) == 2, what="the second delivery")
        await probe.committed(GROUP, *RESULTS)
    assert [len(receiver.got[one]) for one in after] == [1] * 6


async def test_a_private_address_is_refused_whatever_leads_there(
    probe: DispatcherProbe, settings: Settings, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names are judged by the address that is connected to: `rebound.example` was a public one at submit."""
    monkeypatch.setattr(resolve, "_look_up", lambda *_: [(socket.AF_INET, 6, "127.0.0.1")])
    hooks = settings.webhooks.model_copy(update={"allow_private": False, "ports": [receiver.port]})
    strict = settings.model_copy(update={"webhooks": hooks})
    urls = {
        f"{receiver.root}/200": b"private address",
        f"http://localhost:{receiver.port}/200": b"private network",
        f"http://[::ffff:127.0.0.1]:{receiver.port}/": b"stands for an IPv4 one",
        f"http://rebound.example:{receiver.port}/200": b"127.0.0.1 is not allowed for callbacks",
        "http://rebound.example:22/": b"names port 22",
    }
    async with dispatching(strict):
        ids = {await probe.result(url): why for url, why in urls.items()}
        await eventually_async(lambda: len(probe.letters) == len(urls), what="the dead letters")
        await probe.committed(GROUP, *RESULTS)
    assert receiver.got == {}
    for letter in probe.letters:
        assert ids[letter.key.decode()] in dict(letter.headers)["x-reason"]


async def test_senders_share_the_work_and_hand_it_over_without_repeating_it(
    probe: DispatcherProbe, settings: Settings, receiver: Receiver
) -> None:
    ids: list[str] = []
    async with dispatching(settings):
        ids += [await probe.result(f"{receiver.root}/500-then-200") for _ in range(30)]
        async with dispatching(settings):
            ids += [await probe.result(f"{receiver.root}/200") for _ in range(30)]
            await eventually_async(lambda: all(receiver.got[one] for one in ids), what="every callback")
        ids += [await probe.result(f"{receiver.root}/200") for _ in range(30)]
        await eventually_async(lambda: all(receiver.got[one] for one in ids), what="the rest")
        await eventually_async(lambda: all(len(receiver.got[one]) > 1 for one in ids[:30]), what="the second attempts")
        await probe.committed(GROUP, *RESULTS)
    calls = sum(len(receiver.got[one]) for one in ids)
    assert calls <= 30 * 2 + 60 + 5, "at least once, and hardly ever more often"
