"""What a call costs: tokens × price × unit, rounded half-up to 7 decimals, written as decimal strings. Pure."""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Context, Decimal
from typing import Any

from core.settings import ModelSettings
from schemas.parts import Usage

PLACES = Decimal("0.0000001")
BYTES_PER_TOKEN = 4
"""A rule of thumb for text whose tokens nobody counted."""
# Wide enough for any count of tokens and any price: the default of 28 digits would refuse some.
_EXACT = Context(prec=100, rounding=ROUND_HALF_UP)


def usage_object(usage: Usage, model: ModelSettings | None, *, latency_s: float) -> dict[str, Any]:
    """Build the member `usage`; a model without prices costs "0"."""
    known = model is not None and bool(model.prompt_price or model.completion_price)
    unit = model.price_unit if model is not None and known else None
    prompt = _price(usage["prompt_tokens"], model.prompt_price if model is not None else Decimal(0), unit)
    completion = _price(usage["completion_tokens"], model.completion_price if model is not None else Decimal(0), unit)
    return {
        "prompt_tokens": usage["prompt_tokens"],
        "prompt_unit_price": _text(model.prompt_price) if model is not None else "0",
        "prompt_price_unit": _text(unit),
        "prompt_price": _text(prompt),
        "completion_tokens": usage["completion_tokens"],
        "completion_unit_price": _text(model.completion_price) if model is not None else "0",
        "completion_price_unit": _text(unit),
        "completion_price": _text(completion),
        "total_tokens": usage["total_tokens"],
        "total_price": _text(None if prompt is None or completion is None else _EXACT.add(prompt, completion)),
        "currency": model.currency if model is not None else "USD",
        "latency": latency_s,
    }


def tokens_in(text: str) -> int:
    """Estimate the tokens of a text that no upstream counted."""
    return -(-len(text.encode()) // BYTES_PER_TOKEN)


def _price(tokens: int, price: Decimal, unit: Decimal | None) -> Decimal | None:
    if unit is None:
        return None
    cost = _EXACT.multiply(_EXACT.multiply(Decimal(tokens), price), unit)
    return cost.quantize(PLACES, context=_EXACT)


def _text(value: Decimal | None) -> str:
    """Write a number without an exponent, which readers of money do not expect."""
    return "0" if value is None else format(value, "f")
