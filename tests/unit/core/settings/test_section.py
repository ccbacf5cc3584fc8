from __future__ import annotations

import pytest

from core.errors import ConfigError
from core.settings.loader import load_settings


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("registry:8081", "http:// or https://"),
        ("ftp://registry", "http:// or https://"),
        ("http://", "http:// or https://"),
        ("http://registry:99999", "http:// or https://"),
        ("http://a b", "http:// or https://"),
        ("https://one:sesame@registry", "must not hold credentials"),
        ("https://registry/?key=sesame", "must not have a query"),
    ],
)
def test_the_address_of_the_registry_is_checked_and_not_repeated(url: str, told: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load_settings(environ={"HEADRACE_KAFKA_REGISTRY_URL": url})
    sentence = str(refused.value)
    assert sentence.startswith("kafka.registry_url from HEADRACE_KAFKA_REGISTRY_URL is wrong")
    assert told in sentence
    assert "sesame" not in sentence


def test_the_address_of_the_registry_may_have_a_path() -> None:
    settings = load_settings(environ={"HEADRACE_KAFKA_REGISTRY_URL": "https://registry/contexts/.headrace/"})
    assert settings.kafka.registry_url == "https://registry/contexts/.headrace"
