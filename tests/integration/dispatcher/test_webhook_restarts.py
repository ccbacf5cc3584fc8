"""Callbacks while senders start, stop and share the work, and while hosts hang or are away; on a real broker."""

from __future__ import annotations

import socket

import pytest

from core.settings.models import Settings
from dispatcher.webhooks import http_client
from dispatcher.webhooks.service import GROUP
from tests.support.dispatcher_probe import DispatcherProbe, dispatching
from tests.support.receiver import Receiver
from tests.support.waiting import eventually_async
from tests.support.webhook_probe import RESULTS, DeliveryRows, settled, webhooks_command

LONG_S = 3_600


@pytest.fixture(scope="module")
def changes() -> dict[str, object]:
    """Try again soon."""
    return {
        "dispatcher__component": "webhooks",
        "dispatcher__shutdown_grace_s": 1,
        "dispatcher__commit_interval_s": 0.2,
        "webhooks__retry_delays": [0.1, 0.1],
    }


def posting(settings: Settings, **changes: object) -> Settings:
    """Return settings with others for the callbacks."""
    return settings.model_copy(update={"webhooks": settings.webhooks.model_copy(update=changes)})


async def test_a_call_that_is_not_answered_is_made_again(
    probe: DispatcherProbe, settings: Settings, receiver: Receiver, rows: DeliveryRows
) -> None:
    async with dispatching(posting(settings, timeout_s=1)):
        task = await probe.result(f"{receiver.root}/hang-then-200")
        await eventually_async(lambda: rows.state(task) == "delivered", what="the delivery")
        await settled(probe)
    row = rows.of[f"{task}/completed"]
    assert len(row["attempts"]) == row["made"] == len(receiver.got[task]) > 1
    assert [each["status_code"] for each in row["attempts"]] == [None] * (row["made"] - 1) + [200]
    assert task not in probe.dead_letters


async def test_a_host_that_hangs_delays_no_other_host(
    probe: DispatcherProbe, settings: Settings, receiver: Receiver
) -> None:
    async with Receiver() as hanging, dispatching(posting(settings, timeout_s=LONG_S, concurrency=8, per_host=2)):
        held = [await probe.result(f"{hanging.root}/hang") for _ in range(30)]
        await eventually_async(lambda: hanging.holding, what="the first hanging callback")
        others = [await probe.result(f"{receiver.root}/200") for _ in range(20)]
        await eventually_async(lambda: all(receiver.got[one] for one in others), what="the others")
        assert hanging.holding <= 2, "one host has its own share of the deliveries"
        hanging.go_on.set()
        await settled(probe)
    assert [len(hanging.got[one]) for one in held] == [1] * 30


async def test_an_unfinished_delivery_is_made_after_the_restart_and_what_was_delivered_behind_it_is_not(
    probe: DispatcherProbe, settings: Settings, receiver: Receiver
) -> None:
    patient = posting(settings, timeout_s=LONG_S)
    async with dispatching(patient):
        waiting = await probe.result(f"{receiver.root}/hang-then-200")
        after = [await probe.result(f"{receiver.root}/200") for _ in range(6)]
        await eventually_async(lambda: receiver.holding == 1 and all(receiver.got[one] for one in after))
    assert await probe.uncommitted(GROUP, *RESULTS) >= 3, "the one that hangs holds its partition back"
    async with dispatching(patient):
        await eventually_async(lambda: len(receiver.got[waiting]) == 2, what="the second delivery")
        await settled(probe)
    assert [len(receiver.got[one]) for one in after] == [1] * 6


async def test_a_private_address_is_refused_whatever_leads_there(
    probe: DispatcherProbe, settings: Settings, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names are judged by the address that is connected to: `rebound.example` was a public one at submit."""
    monkeypatch.setattr(http_client, "_look_up", lambda *_: [(socket.AF_INET, 6, "127.0.0.1")])
    urls = {
        f"{receiver.root}/200": b"private address",
        f"http://localhost:{receiver.port}/200": b"private network",
        f"http://[::ffff:127.0.0.1]:{receiver.port}/": b"embeds an IPv4 address",
        f"http://rebound.example:{receiver.port}/200": b"127.0.0.1 is not allowed for callbacks",
        "http://rebound.example:22/": b"has port 22",
    }
    async with dispatching(posting(settings, allow_private=False, ports=[receiver.port])):
        ids = {await probe.result(url): why for url, why in urls.items()}
        await eventually_async(lambda: {*ids} <= {*probe.dead_letters}, what="the dead letters")
        await settled(probe)
    assert receiver.got == {}
    for task_id, why in ids.items():
        [letter] = probe.dead_letters[task_id]
        assert why in dict(letter.headers)["x-reason"]


async def test_senders_share_the_work_and_hand_it_over_without_repeating_it(
    probe: DispatcherProbe, settings: Settings, receiver: Receiver
) -> None:
    narrow = posting(settings, concurrency=8, per_host=2)
    ids: list[str] = []
    async with dispatching(narrow):
        ids += [await probe.result(f"{receiver.root}/500-then-200") for _ in range(30)]
        async with dispatching(narrow):
            ids += [await probe.result(f"{receiver.root}/200") for _ in range(30)]
            await eventually_async(lambda: all(receiver.got[one] for one in ids), what="every callback")
        ids += [await probe.result(f"{receiver.root}/200") for _ in range(30)]
        await eventually_async(lambda: all(receiver.got[one] for one in ids), what="the rest")
        await eventually_async(lambda: all(len(receiver.got[one]) > 1 for one in ids[:30]), what="the second attempts")
        await settled(probe)
    calls = sum(len(receiver.got[one]) for one in ids)
    assert calls <= 30 * 2 + 60 + 5, "at least once, and hardly ever more often"


async def test_410_switches_a_url_off_for_its_tenant_across_restarts_until_a_resend_goes_through(
    probe: DispatcherProbe, receiver: Receiver, settings: Settings, rows: DeliveryRows, env: dict[str, str]
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
        run = await webhooks_command(env, "resend", first)
        assert run == f"{first}-completed is resent.\n"
        await eventually_async(lambda: rows.state(first) == "delivered", what="the resend")
        third = await probe.result(f"{receiver.root}/410-then-200", owner="key-one", state="failed")
        await eventually_async(lambda: len(receiver.got[third]) == 1, what="a call of the URL")
        await settled(probe)
    assert len(probe.dead_letters[second]) == 1


async def test_a_dead_host_is_left_alone_and_gets_everything_when_it_is_back(
    probe: DispatcherProbe, receiver: Receiver, settings: Settings, rows: DeliveryRows
) -> None:
    receiver.down = True
    async with Receiver() as alive, dispatching(posting(settings, retry_delays=[0.5, 1, 5, 5, 10])):
        waiting = [await probe.result(f"{receiver.root}/200") for _ in range(120)]
        await eventually_async(lambda: all(map(rows.state, waiting)), what="a row for each")
        refused = receiver.broken_off
        assert refused < len(waiting), "a host that fails every time is not called every time"
        other = await probe.result(f"{alive.root}/200")
        await eventually_async(lambda: alive.got[other], what="another host")
        receiver.down = False
        await eventually_async(lambda: all(rows.state(one) == "delivered" for one in waiting), what="all of them")
        await settled(probe)
    assert {len(receiver.got[one]) for one in waiting} == {1}
    assert not {*waiting} & {*probe.dead_letters}


async def test_a_wait_outlives_the_sender(
    probe: DispatcherProbe, receiver: Receiver, settings: Settings, rows: DeliveryRows
) -> None:
    slow = posting(settings, retry_delays=[5])  # waits in the topic of five seconds
    async with dispatching(slow):
        task = await probe.result(f"{receiver.root}/500-then-200")
        await eventually_async(lambda: rows.state(task) == "pending", what="the failed attempt")
        await probe.committed(GROUP, *RESULTS)
    async with dispatching(slow):
        await eventually_async(lambda: rows.state(task) == "delivered", what="the second attempt")
        await settled(probe)
    first, second = rows.of[f"{task}/completed"]["attempts"]
    assert second["at_ms"] - first["at_ms"] >= 5_000
    assert len(receiver.got[task]) == 2
