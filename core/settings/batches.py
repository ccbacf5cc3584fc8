"""Settings of batches: limits, and how many lines are in flight."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from core.settings.section import Section
from schemas.callback_url import problem


class BatchSettings(Section):
    dialect: Literal["siliconflow", "openai"] = Field(
        "siliconflow", description="Response format of batches and files without X-Headrace-Dialect."
    )
    queue: str = Field("batch", pattern=r"^[a-zA-Z0-9_-]{1,64}$", description="Queue of batches that name none.")
    allow_short_window: bool = Field(
        False, description='Accept a completion_window below 24h, such as "8s"; for tests of expiry.'
    )
    max_lines: int = Field(50_000, ge=1, le=999_999, description="Maximum requests per batch; larger batches fail.")
    max_bytes: int = Field(
        209_715_200, ge=1024, description="Maximum input file size of a batch, bytes; larger batches fail."
    )
    max_in_flight: int = Field(
        2_000, ge=1, le=50_000, description="Maximum lines of one batch that are unfinished tasks."
    )
    enforce_model: bool = Field(
        False, description="Fail a batch whose lines name several models and whose replace names none."
    )
    retention_s: int = Field(
        2_592_000,
        ge=60,
        description="Seconds a batch and its output can be fetched after its end; then they are deleted.",
    )
    callback_url: str = Field(
        "",
        pattern=r"^(https?://.+)?$",
        description="Webhook URL for batches whose metadata has no callback_url.",
    )

    @field_validator("callback_url")
    @classmethod
    def _callback(cls, url: str) -> str:
        """Reject a URL at start-up that every delivery would be refused for."""
        if url and (why := problem(url)) is not None:
            raise ValueError(f"it {why}")
        return url
