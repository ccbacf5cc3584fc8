"""What is believed of a record that somebody else wrote into a tasks topic: the rules of the Kafka door. Pure.

The doors over HTTP judge a task before they write it; what they have written is known by its form and only checked
again. Everything else is held to the same rules here, once it is read.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from core.settings.direct import ANY, TENANT
from schemas.callback_url import OPEN, CallbackPolicy
from schemas.ids import IdError, parse
from schemas.records import Task
from schemas.task_body import normalise_body
from schemas.topics import WORK, declared
from schemas.validation import KEY, MAX_TEXT, Invalid, check_callback, check_endpoint, check_queue

Headers = Sequence[tuple[str, bytes | None]]

DAY_MS = 86_400_000
FIRST_MS, LAST_MS = 946_684_800_000, 4_102_444_800_000
"""The years 2000 to 2099: what the two digits of an id can say."""
NO_TENANTS: Callable[[], Collection[str]] = frozenset


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustPolicy:
    """What the settings allow; the default believes every owner and no reply topic, for tests."""

    owner: str | None = None
    """Of records that name none; None: the only tenant that there is, or nobody."""
    owners: Collection[str] | None = (ANY,)
    """Whom a record may name; None: `tenants`."""
    tenants: Callable[[], Collection[str]] = NO_TENANTS
    callbacks: CallbackPolicy = OPEN
    reply_topics: Sequence[str] = ()
    prefix: str = ""
    now_ms: Callable[[], int] | None = None
    stamped: Callable[[bytes, Headers], bool] = lambda *_: True
    """Tells whether a record in our own form is ours."""


def validate_direct_task(task: Task, headers: Headers, believed: TrustPolicy, *, timestamp_ms: int) -> None:
    """Hold a direct record to the rules and fill in what it leaves out; raises Invalid naming the field."""
    check_queue(task["queue"])
    check_endpoint(task["endpoint"])
    _check_reserved(task)
    _check_clocks(task, believed, timestamp_ms=timestamp_ms)
    _take_key(task, headers)
    task["owner"] = owner_of(task, headers, believed)
    if task["callback_url"] is not None:
        check_callback(task["callback_url"], believed.callbacks)
    for name in ("user", "custom_id"):
        if len(task[name] or "") > MAX_TEXT:
            raise Invalid(name, f"{name} must be at most {MAX_TEXT} characters")
    if task["reply_topic"] is not None:
        check_reply(task["reply_topic"], believed)
    if not task["data"]:
        raise Invalid("data", "data is required")
    body, model = normalise_body(task["data"], mode=task["mode"], content_type=task["content_type"])
    task["data"], task["model"] = body, task["model"] or model


def owner_of(task: Task, headers: Headers, believed: TrustPolicy) -> str | None:
    """Return whose task it is; raises Invalid when its writer may not act for whom it names."""
    given = _claimed(headers, "x-owner")
    named = None if not given else given.decode("utf-8", "replace")
    if named is not None and task["owner"] not in (None, named):
        raise Invalid("x-owner", f"x-owner {named[:64]} and the member owner do not agree")
    field = "owner" if named is None else "x-owner"
    wanted = named or task["owner"]
    usual = believed.owner or _only(believed.tenants())
    if not wanted or wanted == usual:
        return usual
    allowed = believed.tenants() if believed.owners is None else believed.owners
    if ANY in allowed and not TENANT.fullmatch(wanted):
        raise Invalid(field, f"{field} must be 1 to 64 of a-z A-Z 0-9 _ . -")
    if ANY not in allowed and wanted not in allowed:
        raise Invalid(field, f"records of this topic must not act for {wanted[:64]} (direct.allowed_tenants)")
    return wanted


def check_reply(topic: str, believed: TrustPolicy) -> None:
    """Refuse a topic that the settings do not allow, and every one of Headrace's own."""
    if not any(fnmatchcase(topic, pattern) for pattern in believed.reply_topics):
        raise Invalid("reply_topic", f"reply_topic {topic[:80]} is not allowed here (direct.reply_topics)")
    own = topic.removeprefix(believed.prefix)
    if topic.startswith(believed.prefix) and (own.startswith(f"{WORK}.") or own in _OWN):
        raise Invalid("reply_topic", f"reply_topic {topic[:80]} is a topic of Headrace itself")


def _only(tenants: Collection[str]) -> str | None:
    return next(iter(tenants)) if len(tenants) == 1 else None


def _check_reserved(task: Task) -> None:
    """Refuse what would make a stranger's record a line of a batch, or show it somebody else's stored body."""
    if task["mode"] == "batch":
        raise Invalid("mode", "mode must be callback, blocking or streaming")
    reserved = (("batch_id", task["batch_id"]), ("data_ref", task["data_ref"]), ("replay_of", task["replay_of"]))
    for name, value in reserved:
        if value is not None:
            raise Invalid(name, f"{name} is set by Headrace alone")
    if task["batch_line"] != -1:
        raise Invalid("batch_line", "batch_line is set by Headrace alone")
    if task["id"] is not None:
        try:
            derived = parse(task["id"]).mode == "K"
        except IdError as error:
            raise Invalid("id", str(error)) from error
        if derived:
            raise Invalid("id", "ids of mode K are derived from where a record lies; leave the id out")


def _check_clocks(task: Task, believed: TrustPolicy, *, timestamp_ms: int) -> None:
    """Refuse times that no clock shows; what is merely old ends by its own deadline."""
    latest_ms = believed.now_ms() + DAY_MS if believed.now_ms is not None else LAST_MS
    if not FIRST_MS <= timestamp_ms < min(latest_ms, LAST_MS):
        raise Invalid("timestamp", "the record's timestamp must lie between the year 2000 and tomorrow")
    if not 0 <= task["created_ms"] <= latest_ms:
        raise Invalid("created_ms", "created_ms must be epoch milliseconds, at most a day ahead, or 0")


def _claimed(headers: Headers, name: str) -> bytes | None:
    """Return what a header says; raises Invalid when it says more than one thing, for nobody knows what was meant."""
    values = {value for key, value in headers if key == name}
    if len(values) > 1:
        raise Invalid(name, f"{name} is given {len(values)} times with different values")
    return next(iter(values), None)


def _take_key(task: Task, headers: Headers) -> None:
    """Take the key from the header `idempotency-key`, with which the task itself must agree when it names one."""
    key = _claimed(headers, "idempotency-key")
    if key is not None:
        named = key.decode("latin-1")
        if task["idempotency_key"] not in (None, named):
            raise Invalid("idempotency-key", "idempotency-key and the member idempotency_key do not agree")
        task["idempotency_key"] = named
    if task["idempotency_key"] is not None and not KEY.fullmatch(task["idempotency_key"]):
        raise Invalid("idempotency_key", f"idempotency_key must be 1 to {MAX_TEXT} printable ASCII characters")


_OWN = frozenset(topic.name for topic in declared(partitions=1))
