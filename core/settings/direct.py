"""Settings of direct producers: which claims of records in the tasks topics are trusted."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import NoDecode

from core.settings.section import Section, split_commas

TENANT = re.compile(r"[a-zA-Z0-9_.-]{1,64}")
PATTERN = re.compile(r"[a-zA-Z0-9._*?-]{1,249}")
ANY = "*"
SECRET_CHARACTERS = 16


class DirectSettings(Section):
    default_tenant: str = Field(
        "",
        pattern=r"^[a-zA-Z0-9_.-]{0,64}$",
        description="Tenant of records that name none; unset: the only tenant, or none if there are several.",
    )
    allowed_tenants: Annotated[list[str], NoDecode] | None = Field(
        None,
        description="Tenants that a record may name in x-owner, comma separated, * for any; unset: every tenant with a "
        "key while the ingress listens on loopback, else none.",
    )
    reply_topics: Annotated[list[str], NoDecode] = Field(
        default_factory=list,
        description="Topics that a record may name as its reply_topic, comma separated; * and ? stand for any text.",
    )

    secrets: Annotated[list[SecretStr], NoDecode] = Field(
        default_factory=list,
        description="Secrets that Headrace signs its own task records with, comma separated: the first signs, all "
        "verify; unset: records are recognised by their form, which a producer could imitate.",
    )

    tasks_per_minute: int = Field(
        0,
        ge=0,
        le=1_000_000_000,
        description="Tasks per minute that one scheduler accepts from a tenant without a limit in the keys file; "
        "further ones become dead letters. 0: no limit.",
    )

    _split = field_validator("allowed_tenants", "reply_topics", "secrets", mode="before")(split_commas)

    @field_validator("secrets")
    @classmethod
    def _long(cls, secrets: list[SecretStr]) -> list[SecretStr]:
        if not all(len(secret.get_secret_value()) >= SECRET_CHARACTERS for secret in secrets):
            raise ValueError(f"a secret must have at least {SECRET_CHARACTERS} characters")
        return secrets

    @field_validator("allowed_tenants")
    @classmethod
    def _tenants(cls, owners: list[str] | None) -> list[str] | None:
        if not all(name == ANY or TENANT.fullmatch(name) for name in owners or ()):
            raise ValueError("the name of a tenant is 1 to 64 of a-z A-Z 0-9 _ . -, or * for any")
        return owners

    @field_validator("reply_topics")
    @classmethod
    def _topics(cls, patterns: list[str]) -> list[str]:
        if not all(PATTERN.fullmatch(pattern) for pattern in patterns):
            raise ValueError("a topic is 1 to 249 of a-z A-Z 0-9 . _ -, where * and ? stand for any text")
        return patterns
