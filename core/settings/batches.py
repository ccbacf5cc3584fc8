"""The settings of batches: their limits, and how far ahead of what has ended their lines are made tasks."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from core.settings.section import Section
from schemas.callback_url import problem


class BatchSettings(Section):
    dialect: Literal["siliconflow", "openai"] = Field(
        "siliconflow", description="How batches and files answer requests without X-Headrace-Dialect."
    )
    queue: str = Field("batch", pattern=r"^[a-zA-Z0-9_-]{1,64}$", description="Queue of batches that name none.")
    allow_short_window: bool = Field(
        False, description='Take a completion_window below 24h, such as "8s"; for tests of expiry.'
    )
    max_lines: int = Field(50_000, ge=1, le=999_999, description="Most requests of one batch; beyond it it fails.")
    max_bytes: int = Field(
        209_715_200, ge=1024, description="Largest input file of a batch, bytes; beyond it the batch fails."
    )
    window: int = Field(
        2_000, ge=1, le=50_000, description="Most lines of one batch that are tasks and have not ended yet."
    )
    enforce_model: bool = Field(
        False, description="Fail a batch whose lines name several models and whose replace names none."
    )
    retention_s: int = Field(
        2_592_000, ge=60, description="Seconds a batch and its output can be fetched after its end; then it is removed."
    )
    callback_url: str = Field(
        "",
        pattern=r"^(https?://.+)?$",
        description="Where the end of a batch is told when its metadata names no callback_url.",
    )

    @field_validator("callback_url")
    @classmethod
    def _callback(cls, url: str) -> str:
        """Refuse at the start what every delivery would be refused for."""
        if url and (why := problem(url)) is not None:
            raise ValueError(f"it {why}")
        return url
