"""Keys and tenants."""

from __future__ import annotations

from datetime import UTC, datetime
from hashlib import sha256

import pytest
from pydantic import SecretStr
from starlette.requests import Request

from core.errors import ConfigError, Forbidden, Unauthorized
from ingress.auth.key_entry import SCOPES, KeyQuota, from_document
from ingress.auth.keys import Keys

PLAIN, HIDDEN = "sk-plain", "sk-hidden"
KEYS = Keys([SecretStr(PLAIN), SecretStr("sha256:" + sha256(HIDDEN.encode()).hexdigest())])
NOON = datetime(2026, 11, 21, 12, tzinfo=UTC).timestamp()


def bearing(header: str | None) -> Request:
    headers = [] if header is None else [(b"authorization", header.encode("latin-1"))]
    return Request({"type": "http", "headers": headers})


def keys_of(*entries: dict[str, object], now_s: float = NOON) -> Keys:
    return Keys([], from_file=from_document({"tenants": {"acme": {"keys": [*entries]}}}), clock=lambda: now_s)


@pytest.mark.parametrize("key", [PLAIN, HIDDEN])
@pytest.mark.parametrize("header", ["Bearer {}", "bearer {}", "BEARER   {} "])
def test_a_known_key_is_a_tenant(key: str, header: str) -> None:
    caller = KEYS.caller(bearing(header.format(key)), "read")
    assert caller.owner == "key-" + sha256(key.encode()).hexdigest()[:12]
    assert caller.scopes == {"submit", "read"}


def test_a_key_that_is_alone_may_do_everything_and_one_of_several_is_no_master_of_the_others() -> None:
    assert Keys([SecretStr(PLAIN)]).holder(PLAIN, "admin").scopes == SCOPES
    listed = from_document({"tenants": {"acme": {"keys": [{"key": "x"}]}}})
    for keys in (KEYS, Keys([SecretStr(PLAIN)], from_file=listed)):
        with pytest.raises(Forbidden):
            keys.holder(PLAIN, "admin")


@pytest.mark.parametrize(
    "header",
    [None, "", "Bearer", "Bearer ", PLAIN, f"Basic {PLAIN}", f"Bearer {PLAIN}x", "Bearer sk-pl", "Bearer \xff"],
)
def test_anything_else_is_not(header: str | None) -> None:
    with pytest.raises(Unauthorized) as caught:
        KEYS.caller(bearing(header), "read")
    assert PLAIN not in caught.value.message


def test_the_digest_itself_is_no_key() -> None:
    digest = sha256(HIDDEN.encode()).hexdigest()
    for guess in (digest, f"sha256:{digest}"):
        with pytest.raises(Unauthorized):
            KEYS.holder(guess, "read")


@pytest.mark.parametrize("key", ["sha256:", "sha256:zz", "sha256:abcd"])
def test_a_broken_digest_is_a_config_error(key: str) -> None:
    with pytest.raises(ConfigError, match=r"entry 1 of auth.api_keys .* 64 hex digits"):
        Keys([SecretStr(key)])


def test_keys_of_one_tenant_share_its_tasks_and_not_their_scopes() -> None:
    digest = sha256(HIDDEN.encode()).hexdigest()
    keys = keys_of({"id": "a", "key": PLAIN}, {"sha256": digest, "scopes": ["read"], "concurrency": 3})
    first, second = keys.holder(PLAIN, "read"), keys.holder(HIDDEN, "read")
    assert first.owner == second.owner == "acme"
    assert (first.key, second.key) == ("acme/a", f"acme/{digest[:12]}")
    assert first.scopes == {"submit", "read"}
    assert second.limits == KeyQuota(0, 3)
    assert keys.holder(HIDDEN, "read") == second
    with pytest.raises(Forbidden, match="the scope submit; yours has read"):
        keys.holder(HIDDEN, "submit")
    with pytest.raises(Forbidden):
        keys.holder(PLAIN, "admin")


def test_a_key_ends_when_it_expires_and_when_it_is_disabled() -> None:
    entry = {"key": PLAIN, "expires": "2026-11-21T13:00:00+01:00"}
    assert keys_of(entry, now_s=NOON - 1).holder(PLAIN, "read").owner == "acme"
    with pytest.raises(Unauthorized, match="expired"):
        keys_of(entry, now_s=NOON).holder(PLAIN, "read")
    with pytest.raises(Unauthorized, match="disabled"):
        keys_of({"key": PLAIN, "enabled": False}).holder(PLAIN, "read")


def test_keys_of_the_file_are_exchanged_and_those_of_the_settings_stay() -> None:
    keys = Keys([SecretStr(PLAIN)], from_file=from_document({"tenants": {"acme": {"keys": [{"key": "old"}]}}}))
    keys.take_file(from_document({"tenants": {"acme": {"keys": [{"key": "new"}]}}}))
    assert keys.holder("new", "read").owner == "acme"
    assert keys.holder(PLAIN, "read").scopes == {"submit", "read"}
    with pytest.raises(Unauthorized):
        keys.holder("old", "read")


@pytest.mark.parametrize(
    "entries",
    [[{"key": PLAIN}], [{"key": "x"}, {"key": "x"}], [{"key": "x", "id": "i"}, {"key": "y", "id": "i"}]],
)
def test_one_key_or_name_twice_is_refused_and_changes_nothing(entries: list[dict[str, str]]) -> None:
    keys = Keys([SecretStr(PLAIN)])
    with pytest.raises(ConfigError, match=r"listed twice|two keys are called acme/i"):
        keys.take_file(from_document({"tenants": {"acme": {"keys": entries}}}))
    with pytest.raises(Unauthorized):
        keys.holder("x", "read")
    assert keys.holder(PLAIN, "read")
