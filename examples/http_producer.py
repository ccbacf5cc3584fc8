"""Submit a task over HTTP and print its result. Needs nothing but Python.

python examples/http_producer.py "Give me the opposite of hot."
"""

from __future__ import annotations

import argparse
import json
import sys
import urllib.error
import urllib.request
import uuid
from typing import Any


def call(url: str, key: str, headers: dict[str, str] | None = None, body: dict[str, Any] | None = None) -> Any:
    """Send one request, POST if it has a body, and return the decoded response."""
    everything = {"Authorization": f"Bearer {key}", "Content-Type": "application/json", **(headers or {})}
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, headers=everything)
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.load(response)


def main() -> None:
    """Submit the task, then wait for its result with a long poll."""
    parser = argparse.ArgumentParser(description="Submit a task over HTTP and print its result.")
    parser.add_argument("prompt", help="the question for the model")
    parser.add_argument("--url", default="http://127.0.0.1:8080", help="address of the ingress (default: %(default)s)")
    parser.add_argument("--api-key", default="hr-local", help="API key (default: that of the local stack)")
    parser.add_argument("--queue", default="demo", help="queue of the task (default: %(default)s)")
    parser.add_argument("--model", default="smollm2", help="name of the model (default: %(default)s)")
    parser.add_argument("--callback-url", help="where to send the result as a webhook as well")
    parser.add_argument("--idempotency-key", default=str(uuid.uuid4()), help="the same key never runs a task twice")
    options = parser.parse_args()

    task = {
        "queue": options.queue,
        "endpoint": "/v1/chat/completions",
        "response_mode": "callback",  # respond with the id at once
        "data": {"model": options.model, "messages": [{"role": "user", "content": options.prompt}], "max_tokens": 32},
    }
    if options.callback_url:
        task["callback_url"] = options.callback_url
    try:
        # With an idempotency key the request can be repeated when its response was lost.
        headers = {"Idempotency-Key": options.idempotency_key}
        task_id = call(f"{options.url}/v1/queue/put", options.api_key, headers, task)["data"]
        print(f"submitted {task_id}", file=sys.stderr)
        found: dict[str, Any] = {"status": "queued"}
        while found["status"] in ("queued", "processing"):  # each request waits up to 30 s for the end of the task
            found = call(f"{options.url}/v1/tasks/{task_id}", options.api_key, {"Prefer": "wait=30"})
    except urllib.error.HTTPError as error:
        sys.exit(f"{error.code}: {error.read().decode()}")
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
