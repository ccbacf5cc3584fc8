"""What every section of the settings is."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", validate_default=True, frozen=True, allow_inf_nan=False)


def split_commas(value: object) -> object:
    """Read "a,b" from the environment as a list, so that nobody has to write JSON in a shell."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return value
