"""The audit: does what Kafka holds agree with what was promised to the producers, and with what readers are told?"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from ingress.http import sse
from schemas.records import Result
from streams.outputs import usage_of
from streams.state_machine.rows import is_early_cancel
from tests.fault.campaign.evidence import Evidence
from tests.fault.campaign.ledger import Accepted, Ledger
from tests.fault.campaign.load import HEADERS

SAMPLE = 100
WORDS = {"completed": "succeeded", "cancelled": "cancelled"}


@dataclass(slots=True)
class Findings:
    """What is wrong, by sort; all empty when every promise was kept."""

    lost: list[str] = field(default_factory=list)
    double: list[str] = field(default_factory=list)
    open: list[str] = field(default_factory=list)
    """Rows that never became final, acknowledged or not."""
    rows: list[str] = field(default_factory=list)
    usage: list[str] = field(default_factory=list)
    """Tasks that are not accounted for once, as their result says."""
    answers: list[str] = field(default_factory=list)
    readers: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        """Tell whether nothing was found."""
        return not any((self.lost, self.double, self.open, self.rows, self.usage, self.answers, self.readers))


def judge(ledger: Ledger, evidence: Evidence) -> Findings:
    """Compare the producers' side with the log."""
    results = evidence.results
    return Findings(
        lost=[one for one in ledger.accepted if one not in results],
        double=[one for one, several in results.items() if len(several) > 1],
        open=sorted(evidence.open_rows),
        rows=[*_wrong_rows(evidence)],
        usage=[*_wrong_usage(evidence)],
        answers=[
            f"{one}: {wrong}"
            for one, accepted in ledger.accepted.items()
            if one in results and (wrong := _wrong_answer(accepted, results[one][0][1]))
        ],
    )


def _wrong_rows(evidence: Evidence) -> Iterator[str]:
    """Name the rows that do not say what their result says or do not point at it."""
    for one, several in evidence.results.items():
        offset, result = several[0]
        row = evidence.rows.get(one)
        if row is None:
            yield f"{one}: a result and no row"
        elif (row["state"], row["status_code"]) != (result["state"], result["status_code"]):
            yield f"{one}: row {row['state']} {row['status_code']}, result {result['state']} {result['status_code']}"
        elif row["result_offset"] != offset:
            yield f"{one}: the row points at {row['result_offset']}, the result is at {offset}"
    # A write that was never confirmed is withdrawn: where it was not made either, the cancel's own row is all there is.
    yield from (
        f"{one}: a row and no result"
        for one in evidence.rows.keys() - evidence.results.keys()
        if not is_early_cancel(evidence.rows[one])
    )


def _wrong_usage(evidence: Evidence) -> Iterator[str]:
    """Name the tasks whose usage is missing, there twice, or other than what their result says."""
    for one, several in evidence.results.items():
        told = evidence.usage.get(one, [])
        if len(told) != 1:
            yield f"{one}: {len(told)} usage records"
        elif told[0] != usage_of(several[0][1]):
            yield f"{one}: a usage record that does not agree with the result"
    yield from (f"{one}: a usage record and no result" for one in evidence.usage.keys() - evidence.results.keys())


def _wrong_answer(accepted: Accepted, result: Result) -> str | None:
    """Compare what a client was told with the stored outcome; None when they agree or nobody waited to the end."""
    answer = accepted.answer
    if answer is None:
        return None
    if accepted.mode == "streaming":
        frames = list(sse.payloads(answer.body))
        whole = answer.body.rstrip().endswith(b"data: [DONE]")
        # A stream that was broken off says so in its last frame and promises no more.
        if whole and result["state"] != "completed":
            return f"the stream ended well, the result is {result['state']}"
        return "other frames than stored" if whole and frames != list(sse.payloads(result["body"] or b"")) else None
    if answer.status == 503 and b"shutting down" in answer.body:
        return None  # this client was told to fetch the outcome
    if answer.status != result["status_code"]:
        return f"answered {answer.status}, the result is {result['status_code']}"
    return "another body than stored" if result["body"] is not None and answer.body != result["body"] else None


async def ask_readers(urls: Iterable[str], evidence: Evidence, ids: list[str], *, seed: int) -> list[str]:
    """GET a sample from every ingress, and compare it with the stored results."""
    wrong = []
    sample = random.Random(f"{seed}/sample").sample(ids, min(SAMPLE, len(ids)))
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30), headers=HEADERS) as session:
        for url in urls:
            for one in sample:
                async with session.get(f"{url}/v1/queue/{one}") as answer:
                    found = await answer.json()
                if complaint := _wrong_reading(found, evidence.results[one][0][1]):
                    wrong.append(f"{one} at {url}: {complaint}")
    return wrong


def _wrong_reading(found: dict[str, Any], result: Result) -> str | None:
    word = WORDS.get(result["state"]) or ("timeout" if result["error_code"] == "timeout" else "failed")
    if found.get("status") != word:
        return f"says {found.get('status') or found}, the result is {result['state']}"
    told = found["result"]
    if told["status_code"] != result["status_code"]:
        return f"says status {told['status_code']}, the result is {result['status_code']}"
    if result["body"] is None or not result["content_type"].startswith("application/json"):
        return None
    return None if told["body"] == json.loads(result["body"]) else "another body than stored"
