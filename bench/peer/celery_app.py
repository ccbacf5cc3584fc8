"""The same task on Celery: call the upstream, keep the answer. Runs in the peer's own environment."""

from __future__ import annotations

import os

import urllib3
from celery import Celery

app = Celery("peer", broker=os.environ["PEER_REDIS"], backend=os.environ["PEER_REDIS"])
app.conf.update(
    task_acks_late=True,  # at least once, as Headrace: a worker that dies gives its tasks back
    worker_prefetch_multiplier=32,
    task_serializer="json",
    result_expires=3600,
)
pool = urllib3.PoolManager(maxsize=64, block=False)


@app.task(name="peer.call")
def call(body: str) -> str:
    """Send the body and return the answer, which Celery stores in Redis."""
    answer = pool.request(
        "POST", os.environ["PEER_UPSTREAM"], body=body.encode(), headers={"content-type": "application/json"}
    )
    return answer.data.decode()
