"""The keys file: what it may hold, and that a broken one changes nothing."""

from __future__ import annotations

import json
import logging
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from core.errors import ConfigError, Unauthorized
from ingress.auth import keys_file as module
from ingress.auth.key_entry import KeyQuota, from_document
from ingress.auth.keys import Keys
from ingress.auth.keys_file import KeysFile, read_keys
from tests.support.waiting import eventually_async

SECRET = "sk-secret-value"
TOML = f"""
[[tenants.acme.keys]]
id = "web"
sha256 = "{sha256(SECRET.encode()).hexdigest()}"
scopes = ["read"]
requests_per_minute = 60
concurrency = 2
expires = 2027-01-31T00:00:00Z

[[tenants.acme.keys]]
key = "sk-other"

[[tenants."b.c".keys]]
key = "sk-third"
enabled = false
"""
ENTRY = {"key": SECRET}


def holders(keys: Keys) -> list[str]:
    found = []
    for key in (SECRET, "sk-other", "sk-third", "sk-new"):
        try:
            found.append(keys.holder(key, "read").key)
        except Unauthorized as error:
            found.append(error.message)
    return found


def test_toml_and_json_say_the_same(tmp_path: Path) -> None:
    (tmp_path / "keys.toml").write_text("\ufeff" + TOML)  # as editors of Windows write it
    read = read_keys(tmp_path / "keys.toml", limits=KeyQuota(9, 8))
    assert [(key.name, sorted(key.scopes), key.limits) for key in read] == [
        ("acme/web", ["read"], KeyQuota(60, 2)),
        (f"acme/{sha256(b'sk-other').hexdigest()[:12]}", ["read", "submit"], KeyQuota(9, 8)),
        (f"b.c/{sha256(b'sk-third').hexdigest()[:12]}", ["read", "submit"], KeyQuota(9, 8)),
    ]
    first = {
        "id": "web",
        "sha256": f"sha256:{sha256(SECRET.encode()).hexdigest()}",
        "scopes": ["read"],
        "requests_per_minute": 60,
        "concurrency": 2,
        "expires": "2027-01-31T00:00:00Z",
    }
    tenants = {
        "acme": {"keys": [first, {"key": "sk-other"}]},
        "b.c": {"keys": [{"key": "sk-third", "enabled": False}]},
    }
    (tmp_path / "keys.json").write_text("\ufeff" + json.dumps({"tenants": tenants}))
    assert read_keys(tmp_path / "keys.json", limits=KeyQuota(9, 8)) == read


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({}, "must have either sha256 or key"),
        ({"key": SECRET, "sha256": "0" * 64}, "must have either sha256 or key"),
        ({"sha256": SECRET}, "sha256 begins with sha256: but is not followed by 64 hex digits"),
        ({"sha256": 5}, "sha256 must be text"),
        ({"key": "a b"}, "key must be printable ASCII"),
        (ENTRY | {"scopes": ["write"]}, "write is no scope"),
        (ENTRY | {"scopes": [SECRET]}, "a name is no scope"),
        (ENTRY | {"scopes": "read"}, "scopes must be a list"),
        (ENTRY | {"scopes": []}, "scopes must be a list"),
        (ENTRY | {"rate": 5}, "rate is not known; there are id, key"),
        (ENTRY | {SECRET: 5}, "a name is not known"),
        (ENTRY | {"concurrency": -1}, "concurrency must be a whole number"),
        (ENTRY | {"requests_per_minute": True}, "requests_per_minute must be a whole number"),
        (ENTRY | {"expires": "soon"}, "expires must be a time with its zone"),
        (ENTRY | {"expires": "2027-01-31T00:00:00"}, "expires must be a time with its zone"),
        (ENTRY | {"enabled": 1}, "enabled must be true or false"),
        (ENTRY | {"id": "a/b"}, "id must be"),
    ],
)
def test_a_wrong_key_is_named_by_its_place(entry: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as refused:
        from_document({"tenants": {"acme": {"keys": [{"key": "fine"}, entry]}}})
    assert refused.value.message.startswith("key 2 of tenant acme")
    assert words in refused.value.message
    assert SECRET not in refused.value.message


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("k.toml", b"", "lists no key"),
        ("k.toml", b'[[tenants.acme.keys]]\nkey = "sk-secret-value\n', "is not valid TOML at line 2"),
        ("k.toml", b"\xff", "is not UTF-8"),
        ("k.toml", b"[keys]", "keys is not known; the file holds [tenants.NAME] tables"),
        ("k.toml", b"tenants = 1", "tenants must be a table"),
        ("k.toml", b'[tenants."sk-secret-value x"]', "the name of a tenant must be"),
        ("k.toml", b'[tenants.acme]\nkey="sk-secret-value"', "tenant acme: key is not known"),
        ("k.toml", b'[tenants.acme]\nkeys=["sk-secret-value"]', "key 1 of tenant acme must be a table"),
        ("k.json", b'{"tenants": sk-secret-value}', "is not valid JSON at line 1, column 13"),
        ("k.json", b"[]", "must hold a table"),
        ("k.json", b"[" * 100_000, "is not valid"),
    ],
)
def test_a_wrong_file_is_one_sentence(tmp_path: Path, name: str, text: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(text)
    with pytest.raises(ConfigError) as refused:
        read_keys(tmp_path / name)
    assert str(tmp_path / name) in refused.value.message
    assert words in refused.value.message
    assert SECRET not in refused.value.message


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        read_keys(tmp_path / "keys.toml")


async def test_changes_count_without_a_restart_and_a_broken_file_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "POLL_S", 0.01)
    caplog.set_level(logging.INFO, logger="ingress.auth.keys_file")
    path = tmp_path / "keys.toml"
    path.write_text(TOML)
    file = KeysFile(path)
    keys = Keys([], from_file=file.read())
    before = holders(keys)
    assert before[0] == "acme/web"

    def told(event: str) -> list[str]:
        return [record.getMessage() for record in caplog.records if getattr(record, "event", "") == event]

    def exchange(text: str) -> None:
        """Put another file in place at once, as deployments do."""
        (tmp_path / "next").write_text(text)
        (tmp_path / "next").replace(path)

    async with file.followed_by(keys):
        exchange(TOML.replace("acme", "other") + "[[")
        await eventually_async(lambda: bool(told("keys_file_invalid")))
        assert holders(keys) == before
        path.unlink()
        await eventually_async(lambda: len(told("keys_file_invalid")) == 2)
        assert holders(keys) == before
        exchange('[[tenants.acme.keys]]\nid = "new"\nkey = "sk-new"\n')
        await eventually_async(lambda: bool(told("keys_file_loaded")))
    assert holders(keys) == ["the API key is not known"] * 3 + ["acme/new"]
    broken, gone = told("keys_file_invalid")
    assert "is not valid TOML" in broken
    assert "No such file" in gone
    assert all("continuing with the keys loaded before" in sentence for sentence in (broken, gone))
    assert "sk-" not in caplog.text
