"""Compare responses, and summarise many comparisons. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import Any, Literal, NamedTuple

import orjson

from core import lenient_json
from core.sse import payloads
from schemas.common import Usage
from schemas.records import Result

Verdict = Literal["equal", "changed", "failed", "recovered", "unpaired"]
VERDICTS: tuple[Verdict, ...] = ("equal", "changed", "failed", "recovered", "unpaired")
VOLATILE = frozenset(
    {
        "id",
        "created",
        "created_at",
        "completed_at",
        "expires_at",
        "model",
        "object",
        "system_fingerprint",
        "service_tier",
        "timings",
        "usage",
        "obfuscation",
        "request_id",
    }
)
"""Members that differ between equal responses, at any depth; token usage is compared separately."""
EVENT_STREAM = "text/event-stream"
EXCERPT = 2_000
NO_TOKENS: Usage = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}


class ReplayedAnswer(NamedTuple):
    """The data of a result that is needed for the comparison."""

    id: str
    queue: str
    model: str | None
    state: str
    status_code: int
    error_code: str | None
    latency_ms: int | None
    """Duration of the successful attempt, ms; None if no worker had started."""
    usage: Usage
    digest: bytes | None
    """Digest of the content; None if the body could not be read."""
    excerpt: str | None


class Pair(NamedTuple):
    """A replayed task and its original; the original is None if its result is no longer retained.

    Stored responses expire with their tasks, earlier than the result records; without one there is no pair either.
    """

    verdict: Verdict
    original: ReplayedAnswer | None
    replay: ReplayedAnswer
    replay_of: str

    def as_json(self) -> dict[str, Any]:
        """Return one line of the report."""
        return {
            "verdict": self.verdict,
            "replay_of": self.replay_of,
            "original": None if self.original is None else _plain(self.original),
            "replay": _plain(self.replay),
        }


def answer_of(result: Result, body: bytes | None, *, excerpt: bool) -> ReplayedAnswer:
    """Extract the compared data of a result; `body` is None if it could not be read."""
    started = result["started_ms"]
    return ReplayedAnswer(
        id=result["id"],
        queue=result["queue"],
        model=result["model"],
        state=result["state"],
        status_code=result["status_code"],
        error_code=result["error_code"],
        latency_ms=None if started is None else max(0, result["finished_ms"] - started),
        usage=result["usage"] or NO_TOKENS,
        digest=None if body is None else comparable_body(body, result["content_type"]),
        excerpt=body[:EXCERPT].decode(errors="replace") if excerpt and body is not None else None,
    )


def comparable_body(body: bytes, content_type: str) -> bytes:
    """Return a digest of a response, without ids and times, and independent of chunk boundaries."""
    content: Any
    try:
        if content_type.partition(";")[0].strip().lower() == EVENT_STREAM:
            content = _merged_frames(_frames(body))
        else:
            content = _lasting(lenient_json.loads(body))
        text = orjson.dumps(content, option=orjson.OPT_SORT_KEYS)
    except (ValueError, TypeError, RecursionError):  # not JSON, or it cannot be serialised
        return blake2b(body, digest_size=16).digest()
    return blake2b(text, digest_size=16).digest()


def verdict_of(original: ReplayedAnswer | None, replay: ReplayedAnswer) -> Verdict:
    """Compare two outcomes."""
    if original is None:
        return "unpaired"
    went_well, goes_well = original.state == "completed", replay.state == "completed"
    if went_well != goes_well:
        return "recovered" if goes_well else "failed"
    if not went_well:  # both failed: compare the reason, not its wording
        same = (original.state, original.error_code) == (replay.state, replay.error_code)
    elif original.digest is None or replay.digest is None:
        return "unpaired"
    else:
        same = original.digest == replay.digest
    return "equal" if same else "changed"


class ComparisonGroup:
    """Statistics of one queue and model."""

    def __init__(self) -> None:
        self.verdicts: Counter[str] = Counter()
        self._latencies: tuple[list[int], list[int]] = ([], [])
        self._tokens: tuple[Counter[str], Counter[str]] = (Counter(), Counter())

    def add(self, pair: Pair) -> None:
        """Add a pair; latency and tokens only if both results exist."""
        self.verdicts[pair.verdict] += 1
        if pair.original is None:
            return
        for side, answer in enumerate((pair.original, pair.replay)):
            if answer.latency_ms is not None and answer.state == "completed":
                self._latencies[side].append(answer.latency_ms)
            self._tokens[side].update(answer.usage)

    def as_json(self) -> dict[str, Any]:
        """Return the figures as pairs of original and replay."""
        return {
            **{verdict: self.verdicts[verdict] for verdict in VERDICTS},
            "latency_p50_ms": [percentile(side, 0.5) for side in self._latencies],
            "latency_p95_ms": [percentile(side, 0.95) for side in self._latencies],
            "prompt_tokens": [side["prompt_tokens"] for side in self._tokens],
            "completion_tokens": [side["completion_tokens"] for side in self._tokens],
        }


def grouped(pairs: Iterable[Pair]) -> Mapping[tuple[str, str, str], ComparisonGroup]:
    """Group pairs by the queue and model of the original, and the model of the replay."""
    groups: dict[tuple[str, str, str], ComparisonGroup] = defaultdict(ComparisonGroup)
    for pair in pairs:
        first = pair.original or pair.replay
        groups[first.queue, first.model or "", pair.replay.model or ""].add(pair)
    return dict(sorted(groups.items()))


def percentile(values: Sequence[int], part: float) -> int | None:
    """Return a quantile of sorted values."""
    return sorted(values)[min(int(len(values) * part), len(values) - 1)] if values else None


def _lasting(value: Any) -> Any:
    if isinstance(value, dict):
        # A null member equals a missing one.
        return {name: _lasting(item) for name, item in value.items() if name not in VOLATILE and item is not None}
    return [_lasting(item) for item in value] if isinstance(value, list) else value


def _frames(body: bytes) -> Iterable[Any]:
    for payload in payloads(body):
        yield _lasting(lenient_json.loads(payload))


def _merged_frames(frames: Iterable[Any]) -> Any:
    """Merge the deltas of each choice into a complete message.

    Frames of other streams are compared one by one.
    """
    choices: dict[Any, dict[str, Any]] = defaultdict(dict)
    others = []
    for frame in frames:
        found = frame.get("choices") if isinstance(frame, dict) else None
        if not isinstance(found, list):
            others.append(frame)
            continue
        for choice in found:
            if isinstance(choice, dict):
                whole = {"message" if name == "delta" else name: value for name, value in choice.items()}
                _join(choices[str(choice.get("index", 0))], whole)
    for choice in choices.values():
        message = choice.get("message")
        for call in message.get("tool_calls") or () if isinstance(message, dict) else ():
            if isinstance(call, dict):
                call.pop("index", None)
    content = {"choices": [choices[index] for index in sorted(choices)]}
    return {**content, "frames": others} if others else content


def _join(into: dict[str, Any], piece: Mapping[str, Any]) -> None:
    for name, value in piece.items():
        known = into.get(name)
        if isinstance(value, dict):
            _join(into.setdefault(name, {}) if isinstance(known, dict) or known is None else {}, value)
        elif isinstance(value, str) and isinstance(known, str) and name != "role":
            into[name] = known + value
        elif isinstance(value, list) and isinstance(known, list):
            _join_lists(known, value)
        elif value is not None:
            into[name] = value


def _join_lists(known: list[Any], more: list[Any]) -> None:
    """Merge list items by their index, such as tool calls; append items without one."""
    for item in more:
        same = [
            one
            for one in known
            if isinstance(item, dict)
            and isinstance(one, dict)
            and "index" in item
            and one.get("index") == item["index"]
        ]
        if same:
            _join(same[0], item)
        else:
            known.append(item)


def _plain(answer: ReplayedAnswer) -> dict[str, Any]:
    plain = answer._asdict()
    plain["digest"] = None if answer.digest is None else answer.digest.hex()
    if answer.excerpt is None:
        del plain["excerpt"]
    return plain
