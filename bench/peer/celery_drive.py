"""Put tasks into Celery and wait for every result; prints seconds. Runs in the peer's own environment."""

from __future__ import annotations

import os
import sys
import time

import redis
from celery_app import call

WARM = 200


def main(count: int, body: str) -> None:
    """Warm up, then measure from the first task put to the last result stored."""
    store = redis.Redis.from_url(os.environ["PEER_REDIS"])

    def wait(results: int) -> None:
        give_up = time.monotonic() + 300
        while sum(1 for _ in store.scan_iter("celery-task-meta-*", count=5000)) < results:
            if time.monotonic() > give_up:
                sys.exit("not every task got its result in 300 s")
            time.sleep(0.05)

    for _ in range(WARM):
        call.delay(body)
    wait(WARM)
    began = time.perf_counter()
    for _ in range(count):
        call.delay(body)
    wait(WARM + count)
    print(time.perf_counter() - began)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
