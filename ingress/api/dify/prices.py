"""The member `usage` of a completion message: counts and prices, written as decimal strings. Pure."""

from __future__ import annotations

from typing import Any

from core.prices import price_of, text
from core.settings.models import ModelSettings
from schemas.common import Usage

BYTES_PER_TOKEN = 4
"""A rule of thumb for text whose tokens were not counted."""


def usage_object(usage: Usage, model: ModelSettings | None, *, latency_s: float) -> dict[str, Any]:
    """Build the member `usage`; a model without prices costs "0"."""
    price = price_of(usage, model)
    unit = "0" if price is None else text(price.unit)
    return {
        "prompt_tokens": usage["prompt_tokens"],
        "prompt_unit_price": text(model.prompt_price) if model is not None else "0",
        "prompt_price_unit": unit,
        "prompt_price": "0" if price is None else text(price.prompt),
        "completion_tokens": usage["completion_tokens"],
        "completion_unit_price": text(model.completion_price) if model is not None else "0",
        "completion_price_unit": unit,
        "completion_price": "0" if price is None else text(price.completion),
        "total_tokens": usage["total_tokens"],
        "total_price": "0" if price is None else text(price.total),
        "currency": model.currency if model is not None else "USD",
        "latency": latency_s,
    }


def tokens_in(prompt: str) -> int:
    """Estimate the tokens of a text that no upstream counted."""
    return -(-len(prompt.encode()) // BYTES_PER_TOKEN)
