"""Keys and tenants."""

from __future__ import annotations

from hashlib import sha256

import pytest
from pydantic import SecretStr

from core.errors import ConfigError, Unauthorized
from ingress.auth import Keys

PLAIN, HIDDEN = "sk-plain", "sk-hidden"
KEYS = Keys([SecretStr(PLAIN), SecretStr("sha256:" + sha256(HIDDEN.encode()).hexdigest())])


@pytest.mark.parametrize("key", [PLAIN, HIDDEN])
@pytest.mark.parametrize("header", ["Bearer {}", "bearer {}", "BEARER   {} "])
def test_a_known_key_is_a_tenant(key: str, header: str) -> None:
    assert KEYS.tenant(header.format(key)) == "key-" + sha256(key.encode()).hexdigest()[:12]


@pytest.mark.parametrize(
    "header",
    [None, "", "Bearer", "Bearer ", PLAIN, f"Basic {PLAIN}", f"Bearer {PLAIN}x", "Bearer sk-pl", "Bearer \xff"],
)
def test_anything_else_is_not(header: str | None) -> None:
    with pytest.raises(Unauthorized) as caught:
        KEYS.tenant(header)
    assert PLAIN not in caught.value.message


def test_the_digest_itself_is_no_key() -> None:
    digest = sha256(HIDDEN.encode()).hexdigest()
    for guess in (digest, f"sha256:{digest}"):
        with pytest.raises(Unauthorized):
            KEYS.tenant(f"Bearer {guess}")


@pytest.mark.parametrize("key", ["sha256:", "sha256:zz", "sha256:abcd"])
def test_a_broken_digest_is_a_config_error(key: str) -> None:
    with pytest.raises(ConfigError, match="64 hex digits"):
        Keys([SecretStr(key)])
