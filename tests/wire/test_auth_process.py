"""Keys of a running ingress; Kafka is not needed to refuse somebody."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from pathlib import Path

import httpx
import pytest

from core.errors import ConfigError
from core.settings.models import Settings
from ingress.main import serve
from tests.support.ingress_backend import ingress_running
from tests.support.ports import free_port
from tests.support.roles import settings_for

ENTRY = '[[tenants.acme.keys]]\nkey = "{}"\n'


def settings_on(folder: Path, **changes: object) -> Settings:
    return settings_for(f"127.0.0.1:{free_port()}", folder, "keys.", **{"ingress__port": free_port(), **changes})[0]


async def test_a_key_is_let_in_and_shut_out_without_a_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingress.auth.keys_file.POLL_S", 0.02)
    keys = tmp_path / "keys.toml"
    keys.write_text(ENTRY.format("sk-old"))
    settings = settings_on(tmp_path, auth__keys_file=keys)

    async def status(client: httpx.AsyncClient, key: str) -> int:
        response = await client.get("/v1/queue/x", headers={"authorization": f"Bearer {key}"})
        return response.status_code

    async with ingress_running(settings, reached=False) as client:
        assert await status(client, "sk-new") == await status(client, "hr-local") == 401
        assert await status(client, "sk-old") in (404, 503)
        keys.write_text(ENTRY.format("sk-new"))
        give_up = time.monotonic() + 20
        while await status(client, "sk-new") == 401:
            assert time.monotonic() < give_up
            await asyncio.sleep(0.05)
        assert await status(client, "sk-old") == 401


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"ingress__host": "0.0.0.0"}, "so an API key is needed"), ({"auth__keys_file": "gone.toml"}, "cannot be read")],
)
async def test_without_keys_nothing_is_opened(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, changes: dict[str, object], words: str
) -> None:
    caplog.set_level(logging.INFO)
    with contextlib.chdir(tmp_path), pytest.raises(ConfigError, match=words):
        await serve(settings_on(tmp_path, **changes), asyncio.Event())
    assert not [record for record in caplog.records if getattr(record, "event", "") == "ingress_listening"]
