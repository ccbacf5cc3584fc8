"""Settings of webhooks, and the keys that sign them."""

from __future__ import annotations

from base64 import b64decode
from typing import Annotated

from pydantic import Field, SecretStr, ValidationInfo, field_validator
from pydantic_settings import NoDecode

from core.settings.section import Section, split_commas

RETRY_MAX_S, RETRY_SUM_S = 172_800, 500_000
"""Webhook payloads are built from results, which are retained for 604,800 s."""


def webhook_key(text: str) -> tuple[str, bytes]:
    """Read a signing key as its scheme, v1 or v1a, and its bytes; raises ValueError."""
    kind, _, encoded = text.partition("_")
    try:
        key = b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except ValueError:
        raise ValueError("the part after whsec_ or whsk_ must be base64") from None
    if kind == "whsec" and 24 <= len(key) <= 64:
        return "v1", key
    if kind == "whsk" and len(key) in (32, 64):
        return "v1a", key[:32]
    raise ValueError("a key is whsec_ with 24 to 64 bytes, or whsk_ with an Ed25519 seed of 32 bytes, in base64")


class WebhookSettings(Section):
    allow_private: bool | None = Field(
        None, description="Allow webhooks to private addresses; unset: only while the ingress listens on loopback."
    )
    ports: Annotated[list[int], NoDecode] = Field(
        default_factory=list,
        description="Allowed ports of webhook URLs; unset: 80, 443, 8080, 8443, or any where private is allowed.",
    )
    secret: Annotated[list[SecretStr], NoDecode] = Field(
        default_factory=list,
        description="Signing keys of webhooks: whsec_BASE64 (v1), whsk_BASE64 (v1a); several during a key rotation.",
    )
    tenant_secrets: Annotated[list[SecretStr], NoDecode] = Field(
        default_factory=list, description="TENANT=KEY: signing keys of one tenant, used instead."
    )
    timeout_s: float = Field(15, gt=0, description="Timeout of one delivery attempt, seconds.")
    retry_delays: Annotated[list[float], NoDecode] = Field(
        default_factory=lambda: list[float]((5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400)),
        description="Seconds before each further attempt, comma separated.",
    )
    concurrency: int = Field(256, ge=1, description="Concurrent deliveries.")
    per_host: int = Field(16, ge=1, description="Concurrent deliveries per host.")
    gone_ttl_s: int = Field(
        86_400, ge=1, le=604_800, description="Seconds during which a URL that has answered 410 gets no deliveries."
    )
    max_body_bytes: int = Field(1_048_576, ge=1024, description="Results above this are sent as a link, bytes.")
    public_url: str = Field(
        "", pattern=r"^(https?://.+[^/])?$", description="URL at which receivers reach the ingress, for that link."
    )

    _split = field_validator("retry_delays", "ports", "secret", "tenant_secrets", mode="before")(split_commas)

    @field_validator("ports")
    @classmethod
    def _ports(cls, ports: list[int]) -> list[int]:
        if not all(1 <= port <= 65_535 for port in ports):
            raise ValueError("a port is a number from 1 to 65535")
        return ports

    @field_validator("retry_delays")
    @classmethod
    def _delays(cls, delays: list[float]) -> list[float]:
        if not all(0 <= delay <= RETRY_MAX_S for delay in delays) or sum(delays) > RETRY_SUM_S:
            raise ValueError(f"each must be from 0 to {RETRY_MAX_S}, and their sum at most {RETRY_SUM_S}")
        return delays

    @field_validator("secret", "tenant_secrets")
    @classmethod
    def _keys(cls, keys: list[SecretStr], info: ValidationInfo) -> list[SecretStr]:
        for key in keys:
            tenant, mark, text = key.get_secret_value().rpartition("=whs")
            if bool(tenant) != (info.field_name == "tenant_secrets"):
                raise ValueError("a key of all tenants is whsec_… or whsk_…, one of a tenant TENANT=whsec_…")
            webhook_key(text if not mark else f"whs{text}")
        return keys
