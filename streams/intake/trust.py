"""Which fields of a direct task record are trusted. Pure.

The HTTP APIs validate a task before they write it; their records are recognised by their form and signature, and only
checked again. Direct records, written by other producers, must pass these rules when they are read.
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
"""The years 2000 to 2099, which the two-digit year of an id can express."""
NO_TENANTS: Callable[[], Collection[str]] = frozenset


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustPolicy:
    """Trust policy of the settings. The default, for tests, allows every tenant and no reply topic."""

    owner: str | None = None
    """Tenant of records without one; None: the only known tenant, or none if there are several."""
    owners: Collection[str] | None = (ANY,)
    """Tenants that a record may name; None: those of `tenants`."""
    tenants: Callable[[], Collection[str]] = NO_TENANTS
    callbacks: CallbackPolicy = OPEN
    reply_topics: Sequence[str] = ()
    prefix: str = ""
    now_ms: Callable[[], int] | None = None
    is_signed: Callable[[bytes, Headers], bool] = lambda *_: True
    """Verifies the signature of a record in the internal form."""


def validate_direct_task(task: Task, headers: Headers, trust: TrustPolicy, *, timestamp_ms: int) -> None:
    """Validate a direct record and set its defaults; raises Invalid naming the field."""
    check_queue(task["queue"])
    check_endpoint(task["endpoint"])
    _check_reserved(task)
    _check_clocks(task, trust, timestamp_ms=timestamp_ms)
    _apply_idempotency_header(task, headers)
    task["owner"] = owner_of(task, headers, trust)
    if task["callback_url"] is not None:
        check_callback(task["callback_url"], trust.callbacks)
    for name in ("user", "custom_id"):
        if len(task[name] or "") > MAX_TEXT:
            raise Invalid(name, f"{name} must be at most {MAX_TEXT} characters")
    if task["reply_topic"] is not None:
        check_reply(task["reply_topic"], trust)
    if not task["data"]:
        raise Invalid("data", "data is required")
    body, model = normalise_body(task["data"], mode=task["mode"], content_type=task["content_type"])
    task["data"], task["model"] = body, task["model"] or model


def owner_of(task: Task, headers: Headers, trust: TrustPolicy) -> str | None:
    """Return the tenant of a task; raises Invalid if its producer may not use the named tenant."""
    given = _claimed(headers, "x-owner")
    named = None if not given else given.decode("utf-8", "replace")
    if named is not None and task["owner"] not in (None, named):
        raise Invalid("x-owner", f"x-owner {named[:64]} and the field owner differ")
    field = "owner" if named is None else "x-owner"
    wanted = named or task["owner"]
    default = trust.owner or _only(trust.tenants())
    if not wanted or wanted == default:
        return default
    allowed = trust.tenants() if trust.owners is None else trust.owners
    if ANY in allowed and not TENANT.fullmatch(wanted):
        raise Invalid(field, f"{field} must be 1 to 64 of a-z A-Z 0-9 _ . -")
    if ANY not in allowed and wanted not in allowed:
        raise Invalid(field, f"the tenant {wanted[:64]} is not allowed for direct records (direct.allowed_tenants)")
    return wanted


def check_reply(topic: str, trust: TrustPolicy) -> None:
    """Reject a reply topic that the settings do not allow, or that is an internal topic."""
    if not any(fnmatchcase(topic, pattern) for pattern in trust.reply_topics):
        raise Invalid("reply_topic", f"reply_topic {topic[:80]} is not allowed here (direct.reply_topics)")
    own = topic.removeprefix(trust.prefix)
    if topic.startswith(trust.prefix) and (own.startswith(f"{WORK}.") or own in _OWN):
        raise Invalid("reply_topic", f"reply_topic {topic[:80]} is an internal topic of Headrace")


def _only(tenants: Collection[str]) -> str | None:
    return next(iter(tenants)) if len(tenants) == 1 else None


def _check_reserved(task: Task) -> None:
    """Reject reserved fields: they would add a batch line or expose the stored body of another tenant."""
    if task["mode"] == "batch":
        raise Invalid("mode", "mode must be callback, blocking or streaming")
    reserved = (("batch_id", task["batch_id"]), ("data_ref", task["data_ref"]), ("replay_of", task["replay_of"]))
    for name, value in reserved:
        if value is not None:
            raise Invalid(name, f"{name} is reserved for Headrace")
    if task["batch_line"] != -1:
        raise Invalid("batch_line", "batch_line is reserved for Headrace")
    if task["id"] is not None:
        try:
            derived = parse(task["id"]).mode == "K"
        except IdError as error:
            raise Invalid("id", str(error)) from error
        if derived:
            raise Invalid("id", "ids of mode K are derived from the record's position; omit the id")


def _check_clocks(task: Task, trust: TrustPolicy, *, timestamp_ms: int) -> None:
    """Reject impossible times; a task that is only old ends by its deadline."""
    latest_ms = trust.now_ms() + DAY_MS if trust.now_ms is not None else LAST_MS
    if not FIRST_MS <= timestamp_ms < min(latest_ms, LAST_MS):
        raise Invalid("timestamp", "the record's timestamp must be between the year 2000 and tomorrow")
    if not 0 <= task["created_ms"] <= latest_ms:
        raise Invalid("created_ms", "created_ms must be epoch milliseconds, at most a day ahead, or 0")


def _claimed(headers: Headers, name: str) -> bytes | None:
    """Return the value of a header; raises Invalid if it is given with different values."""
    values = {value for key, value in headers if key == name}
    if len(values) > 1:
        raise Invalid(name, f"{name} is given {len(values)} times with different values")
    return next(iter(values), None)


def _apply_idempotency_header(task: Task, headers: Headers) -> None:
    """Set the key from the header `idempotency-key`; raises Invalid if the task names another key."""
    key = _claimed(headers, "idempotency-key")
    if key is not None:
        named = key.decode("latin-1")
        if task["idempotency_key"] not in (None, named):
            raise Invalid("idempotency-key", "idempotency-key and the field idempotency_key differ")
        task["idempotency_key"] = named
    if task["idempotency_key"] is not None and not KEY.fullmatch(task["idempotency_key"]):
        raise Invalid("idempotency_key", f"idempotency_key must be 1 to {MAX_TEXT} printable ASCII characters")


_OWN = frozenset(topic.name for topic in declared(partitions=1))
