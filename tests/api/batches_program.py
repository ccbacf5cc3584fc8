"""Scenarios in which the stock OpenAI SDK, whichever version is found, runs batches; sdk_main.py runs them.

Answers in OpenAI's dialect are held to the SDK's strict validation.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from typing import Any

import openai

MODEL = "sim-instant"
ENDED_S = 90
POLL_S = 0.2
ENDED = ("completed", "failed", "expired", "cancelled")
CHAT: Any = "/v1/chat/completions"


def line(custom_id: str, *, url: str = CHAT, method: str = "POST", **body: Any) -> bytes:
    """Build one request."""
    ask = {"model": MODEL, "messages": [{"role": "user", "content": f"Hallo {custom_id} ✓"}]} | body
    return json.dumps({"custom_id": custom_id, "method": method, "url": url, "body": ask}).encode() + b"\n"


def create(client: openai.OpenAI, data: bytes, **more: Any) -> Any:
    """Upload requests and create their batch."""
    file = client.files.create(file=("requests.jsonl", data), purpose="batch")
    assert (file.status, file.purpose, file.bytes) == ("processed", "batch", len(data))
    return client.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h", **more)


def ended(client: openai.OpenAI, batch_id: str) -> Any:
    """Look at a batch until it has ended, as every guide has it."""
    give_up = time.monotonic() + ENDED_S
    while True:
        batch = client.batches.retrieve(batch_id)
        assert batch.request_counts is not None or client.default_headers.get("X-Headrace-Dialect") is None
        if batch.status in ENDED:
            return batch
        assert time.monotonic() < give_up, batch
        time.sleep(POLL_S)


def lines_of(client: openai.OpenAI, file_id: str) -> dict[str, Any]:
    """Download a file and return its lines by their custom_id, each of which is there once."""
    found = [json.loads(text) for text in client.files.content(file_id).text.splitlines()]
    by_id = {one["custom_id"]: one for one in found}
    assert len(by_id) == len(found), found
    return by_id


def whole(client: openai.OpenAI) -> None:
    """Upload, create, poll, download; the file is the client's to delete afterwards."""
    data = b"".join(line(f"request-{number}") for number in range(30))
    created = create(client, data, metadata={"run": "nightly"})
    assert (created.status, created.metadata) == ("validating", {"run": "nightly"})
    batch = ended(client, created.id)
    assert batch.status == "completed", batch
    assert (batch.request_counts.total, batch.request_counts.completed, batch.request_counts.failed) == (30, 30, 0)
    assert batch.error_file_id is None
    assert batch.usage is None or batch.usage.total_tokens > 0
    found = lines_of(client, batch.output_file_id)
    assert set(found) == {f"request-{number}" for number in range(30)}
    for one in found.values():
        assert one["response"]["status_code"] == 200
        assert one["response"]["body"]["choices"][0]["message"]["content"]
        assert one["error"] is None
    shown = client.files.retrieve(batch.output_file_id)
    assert (shown.purpose, shown.bytes) == ("batch_output", len(client.files.content(shown.id).read()))
    assert client.files.delete(batch.input_file_id).deleted
    assert batch.input_file_id not in {file.id for file in client.files.list()}


def bad_lines(client: openai.OpenAI) -> None:
    """What only the model can find fault with is in the error file; the batch completes."""
    data = line("good") + line("bad", messages="no list") + line("streamed", stream=True)
    batch = ended(client, create(client, data).id)
    assert batch.status == "completed"
    assert (batch.request_counts.total, batch.request_counts.completed, batch.request_counts.failed) == (3, 2, 1)
    assert set(lines_of(client, batch.output_file_id)) == {"good", "streamed"}
    [bad] = lines_of(client, batch.error_file_id).values()
    assert (bad["custom_id"], bad["response"]["status_code"], bad["error"]) == ("bad", 400, None)


def invalid_file(client: openai.OpenAI) -> None:
    data = line("a") + b"{\n" + line("a") + line("b", url="/v1/embeddings")
    batch = ended(client, create(client, data).id)
    assert batch.status == "failed"
    assert {(error.code is not None, error.line) for error in batch.errors.data} == {(True, 2), (True, 3), (True, 4)}
    assert (batch.output_file_id, batch.error_file_id) == (None, None)


def cancelled(client: openai.OpenAI) -> None:
    data = b"".join(line(str(number), sim={"latency_ms": 60_000}) for number in range(20))
    batch = create(client, data)
    asked = client.batches.cancel(batch.id)
    assert asked.status in ("cancelling", "cancelled")
    batch = ended(client, batch.id)
    assert batch.status == "cancelled"
    assert client.batches.cancel(batch.id).status == "cancelled"


def pages(client: openai.OpenAI) -> None:
    """The SDK goes through all pages by itself."""
    made = [create(client, line("a")).id for _ in range(3)]
    found = [batch.id for batch in client.batches.list(limit=2)]
    assert [one for one in found if one in made] == made[::-1]
    page = client.batches.list(limit=1)
    assert (len(page.data), page.has_next_page()) == (1, True)
    for batch_id in made:
        ended(client, batch_id)


def refused(client: openai.OpenAI) -> None:
    try:
        client.batches.create(input_file_id="file-none", endpoint=CHAT, completion_window="24h")
    except openai.BadRequestError as error:
        assert error.param == "input_file_id"  # noqa: PT017 - no pytest in this program
    else:
        raise AssertionError("a batch of nothing was taken")
    for ask in (lambda: client.batches.retrieve("batch_none"), lambda: client.files.retrieve("file-none")):
        try:
            ask()
        except openai.NotFoundError:
            continue
        raise AssertionError("what is not there was found")
    try:
        client.with_options(api_key="no").batches.list()
    except openai.AuthenticationError:
        return
    raise AssertionError("a wrong key was taken")


def siliconflow(client: openai.OpenAI) -> None:
    """The SDK without our header speaks the other dialect, as the source document's sample has it."""
    with openai.OpenAI(api_key=client.api_key, base_url=client.base_url) as other:
        body = {"messages": [{"role": "user", "content": "Hallo"}]}
        data = json.dumps({"custom_id": "a", "body": body}).encode()
        batch = create(other, data, extra_body={"replace": {"model": MODEL}})
        assert (str(batch.status), batch.request_counts) == ("in_queue", None)
        batch = ended(other, batch.id)
        assert batch.status == "completed"
        [one] = lines_of(other, batch.output_file_id).values()
        assert one["response"]["body"]["model"] == MODEL
        refused(other)


SCENARIOS: Mapping[str, Callable[[openai.OpenAI], None]] = {
    one.__name__: one for one in (whole, bad_lines, invalid_file, cancelled, pages, refused, siliconflow)
}
PREFIXES = ("/v1",)


def client_of(base_url: str, key: str) -> openai.OpenAI:
    """Make the client that the scenarios get."""
    headers = {"X-Headrace-Dialect": "openai"}
    return openai.OpenAI(api_key=key, base_url=base_url, default_headers=headers, _strict_response_validation=True)
