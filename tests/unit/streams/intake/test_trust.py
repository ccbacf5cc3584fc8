"""Which tenants and fields of direct records are trusted."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from core.settings.models import Settings
from core.tenants import Tenants
from schemas.callback_url import policy_of
from schemas.topics import declared
from streams.intake.decode import InvalidRecord, Submission, read_task
from streams.intake.gateway import trust_policy_from
from streams.intake.trust import DAY_MS, TrustPolicy

NOW_MS = 1_795_000_000_000
BODY = {"queue": "chat", "endpoint": "/v1/chat/completions", "data": {"model": "m"}}
ANYBODY = TrustPolicy()
LOCAL = "key-d97332b71bf9"
"""The tenant of hr-local."""


def read(trust: TrustPolicy, *, acts_for: str | None = None, **changes: Any) -> Submission | InvalidRecord:
    return read_with([] if acts_for is None else [("x-owner", acts_for.encode())], trust, **changes)


def read_with(named: Any, trust: TrustPolicy = ANYBODY, **changes: Any) -> Submission | InvalidRecord:
    value = json.dumps({**BODY, **changes}).encode()
    message = SimpleNamespace(
        topic="tasks.online", partition=0, offset=1, timestamp=NOW_MS / 1000, key=None, value=value, headers=named
    )
    return read_task(message, level=0, max_bytes=1_048_576, trust=trust)


def owner(trust: TrustPolicy, header: str | None = None, member: str | None = None) -> str | None:
    found = read(trust, acts_for=header, **({} if member is None else {"owner": member}))
    if isinstance(found, InvalidRecord):
        return f"!{found.field}"
    return found.task["owner"]


def settings(**sections: Any) -> Settings:
    return Settings.model_validate(sections)


def test_on_loopback_every_tenant_with_a_key_may_be_named() -> None:
    alone = trust_policy_from(settings())
    assert [owner(alone), owner(alone, LOCAL), owner(alone, member=LOCAL)] == [LOCAL] * 3
    assert owner(alone, "key-other") == "!x-owner"
    assert owner(alone, member="key-other") == "!owner"
    several = trust_policy_from(settings(auth={"api_keys": ["one", "two"]}))
    names = sorted(several.tenants())
    assert len(names) == 2
    assert [owner(several), *(owner(several, name) for name in names)] == [None, *names]


def test_beyond_loopback_no_tenant_is_allowed_unless_configured() -> None:
    outside: dict[str, Any] = {"ingress": {"host": "0.0.0.0"}, "auth": {"api_keys": ["one", "two"]}}
    closed = trust_policy_from(settings(**outside))
    [first, _] = sorted(closed.tenants())
    assert [owner(closed), owner(closed, first)] == [None, "!x-owner"]
    listed = trust_policy_from(settings(**outside, direct={"default_tenant": "shop", "allowed_tenants": [first]}))
    assert [owner(listed), owner(listed, "shop"), owner(listed, first)] == ["shop", "shop", first]
    assert owner(listed, "other") == "!x-owner"
    open_ = trust_policy_from(settings(**outside, direct={"allowed_tenants": ["*"]}))
    assert [owner(open_, "anybody"), owner(open_, "no name!"), owner(open_, "x" * 65)] == [
        "anybody",
        "!x-owner",
        "!x-owner",
    ]


def test_header_and_member_must_agree() -> None:
    any_ = TrustPolicy()
    assert [owner(any_, "a", "a"), owner(any_, "a", "b"), owner(any_, "", "b")] == ["a", "!x-owner", "b"]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([b"a", b"a"], "a"),
        ([b"a", b"b"], "!x-owner"),
        ([b"", b"a"], "!x-owner"),
        ([b"a", None], "!x-owner"),
        ([None, None], None),
        ([b"b", b"a", b"b"], "!x-owner"),
    ],
)
def test_a_tenant_named_twice_must_be_the_same(values: list[bytes | None], expected: str | None) -> None:
    found = read_with([("x-owner", value) for value in values])
    assert (found.task["owner"] if isinstance(found, Submission) else f"!{found.field}") == expected


@pytest.mark.parametrize(
    ("values", "member", "expected"),
    [
        ([], "m", "m"),
        ([b"h"], None, "h"),
        ([b"h"], "h", "h"),
        ([b"h", b"h"], None, "h"),
        ([b"h"], "m", "!idempotency-key"),
        ([b"h", b"m"], "m", "!idempotency-key"),
        ([b""], "m", "!idempotency-key"),
        ([b"\xff"], None, "!idempotency_key"),
        ([b""], None, "!idempotency_key"),
        ([None], "m", "m"),
    ],
)
def test_the_key_of_header_and_member_must_agree(values: list[bytes | None], member: str | None, expected: str) -> None:
    changes = {} if member is None else {"idempotency_key": member}
    found = read_with([("idempotency-key", value) for value in values], **changes)
    assert (found.task["idempotency_key"] if isinstance(found, Submission) else f"!{found.field}") == expected


def test_callbacks_are_held_to_the_policy_of_the_deployment() -> None:
    strict = TrustPolicy(callbacks=policy_of(private=False, ports=()))
    for url, well in (("https://example.com/done", True), ("http://127.0.0.1/done", False), ("http://x:22/", False)):
        found = read(strict, callback_url=url)
        assert isinstance(found, Submission) is well
        assert well or (isinstance(found, InvalidRecord) and found.field == "callback_url")


@pytest.mark.parametrize(
    ("topic", "well"),
    [
        ("answers", True),
        ("replies.of-me", True),
        ("replies", False),
        ("headrace.tasks.online", False),
        ("headrace.work.chat.online", False),
        ("headrace.answers", True),
        ("x" * 300, False),
    ],
)
def test_a_reply_topic_must_be_allowed_and_none_of_our_own(topic: str, well: bool) -> None:
    trust = TrustPolicy(reply_topics=("answers", "replies.*", "headrace.*"), prefix="headrace.")
    found = read(trust, reply_topic=topic)
    assert isinstance(found, Submission) is well
    assert well or (isinstance(found, InvalidRecord) and found.field == "reply_topic")


@pytest.mark.parametrize("prefix", ["", "headrace."])
def test_no_declared_topic_can_be_a_reply_topic(prefix: str) -> None:
    trust = TrustPolicy(reply_topics=("*",), prefix=prefix)
    assert all(isinstance(read(trust, reply_topic=prefix + one.name), InvalidRecord) for one in declared(partitions=1))


def test_a_task_may_come_from_the_past_but_not_from_beyond_tomorrow() -> None:
    trust = TrustPolicy(now_ms=lambda: NOW_MS)
    for created_ms, well in ((1, True), (NOW_MS + DAY_MS, True), (NOW_MS + DAY_MS + 1, False)):
        found = read(trust, created_ms=created_ms)
        assert isinstance(found, Submission) is well
        assert well or (isinstance(found, InvalidRecord) and found.field == "created_ms")
    late = TrustPolicy(now_ms=lambda: NOW_MS - DAY_MS)
    found = read(late)
    assert isinstance(found, InvalidRecord)
    assert found.field == "timestamp"


def test_tenants_of_a_keys_file_are_read_again_when_it_changes(tmp_path: Path) -> None:
    path, now = tmp_path / "keys.toml", [0.0]
    path.write_text('[[tenants.acme.keys]]\nkey = "a"\n')
    tenants = Tenants(settings(auth={"keys_file": path}), clock=lambda: now[0])
    assert tenants.known() == {"acme"}
    path.write_text('[[tenants.acme.keys]]\nkey = "a"\n[[tenants.shop.keys]]\nkey = "b"\n')
    assert tenants.known() == {"acme"}
    now[0] += 2
    assert tenants.known() == {"acme", "shop"}
    for broken in ("[[", "[other]\n", 'tenants = "x"'):
        path.write_text(broken)
        now[0] += 2
        assert tenants.known() == {"acme", "shop"}
    path.unlink()
    now[0] += 2
    assert tenants.known() == {"acme", "shop"}
