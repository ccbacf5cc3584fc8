"""A batch and the key that it was made with, while an ingress and the scheduler of batches are killed."""

from __future__ import annotations

import asyncio

from tests.support.batch_client import BatchClient, requests
from tests.support.site import Site


async def test_a_key_is_one_batch_at_all_ingresses_and_across_their_restarts(site: Site) -> None:
    client, stranger = BatchClient(site, "batches"), BatchClient(site, "strangers")
    file = await client.upload(requests(1))
    once = {"headers": {"Idempotency-Key": "nightly"}, "json": client.of(file)}
    both = await asyncio.gather(*(client.ask("POST", "/v1/batches", at=number, **once) for number in range(8)))
    [batch_id] = {one["id"] for one in both}
    done = await client.batch_ended(both[0])
    assert done["request_counts"] == {"total": 1, "completed": 1, "failed": 0}
    for name in ("ingress-1", "offline"):
        site.roles[name].kill()
        site.roles[name].start()
    await site.ready()
    for at in (0, 1):
        assert (await client.ask("POST", "/v1/batches", at=at, **once))["id"] == batch_id
        other = {**once, "json": client.of(file, completion_window="2d")}
        refused = await client.ask("POST", "/v1/batches", at=at, status=422, **other)
        assert (refused["error"]["code"], refused["data"]) == ("idempotency_conflict", "Idempotency-Key")
    foreign = await stranger.ask("POST", "/v1/batches", at=1, status=400, **once)
    assert foreign["data"] == "input_file_id", "the key of another tenant is another key"
    listed = (await client.ask("GET", "/v1/batches", at=1))["data"]
    assert [one["id"] for one in listed if one["input_file_id"] == file["id"]] == [batch_id]
