"""The link to a large result, the default for batches, and which URLs count as disabled."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition

from core.clock import epoch_ms
from core.deliveries import new_delivery
from core.settings.models import Settings
from dispatcher.webhooks.disabled_urls import DisabledUrls
from dispatcher.webhooks.payload import _own_url
from schemas.codec import DELIVERY


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8080"),
        ("localhost", "http://localhost:8080"),
        ("::1", "http://[::1]:8080"),
        ("0.0.0.0", ""),
        ("::", ""),
    ],
)
def test_a_link_leads_to_an_ingress_on_this_machine(host: str, url: str) -> None:
    assert (
        _own_url(Settings.model_validate({"ingress": {"host": host, "port": 8080}, "auth": {"api_keys": "x"}})) == url
    )


def test_a_default_callback_that_could_never_be_called_is_refused_at_the_start() -> None:
    for url in ("", "https://there.example/batches", "http://127.0.0.1:8081/x"):
        assert Settings.model_validate({"batches": {"callback_url": url}}).batches.callback_url == url
    for url in (
        "ftp://there.example/",
        "http://0x7f.1/",
        "http://user:secret@there.example/",
        "http://169.254.169.254/",
    ):
        with pytest.raises(ValueError, match="callback_url"):
            Settings.model_validate({"batches": {"callback_url": url}})


def test_a_url_whose_time_is_over_is_not_counted() -> None:
    now_ms = epoch_ms()
    disabled = DisabledUrls(Settings(), name="test")
    for name, until_ms in (("over", now_ms - 1), ("alone", now_ms + 600_000), ("alone-too", now_ms + 600_000)):
        mark = new_delivery(
            "TASK-1-0-C-261118110640-0001-000001",
            "completed",
            name="completed",
            url=f"http://there/{name}",
            owner=None,
            level=0,
            result_offset=1,
            payload=None,
            now_ms=now_ms,
        )
        value = DELIVERY.encode({**mark, "state": "disabled", "due_ms": until_ms})
        record: Any = SimpleNamespace(key=name.encode(), value=value)
        disabled.apply(TopicPartition("disabled", 0), [record])
    assert len(disabled) == 2
