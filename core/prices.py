"""Price of a call: tokens × price × unit, rounded half-up to 7 decimals. Pure; the price table is settings.models."""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Context, Decimal
from typing import NamedTuple

from core.settings.models import ModelSettings
from schemas.common import Usage

PLACES = Decimal("0.0000001")
# Precise enough for any token count and price: the default of 28 digits would reject some.
_EXACT = Context(prec=100, rounding=ROUND_HALF_UP)


class Price(NamedTuple):
    """Price of one call, prompt and completion."""

    prompt: Decimal
    completion: Decimal
    unit: Decimal
    """One token in units of the model's prices."""
    currency: str

    @property
    def total(self) -> Decimal:
        """Return the sum of the rounded parts, so that the displayed parts add up."""
        return _EXACT.add(self.prompt, self.completion)


def price_of(usage: Usage, model: ModelSettings | None) -> Price | None:
    """Return the price of a call; None for a model without prices."""
    if model is None or not (model.prompt_price or model.completion_price):
        return None
    return Price(
        _price(usage["prompt_tokens"], model.prompt_price, model.price_unit),
        _price(usage["completion_tokens"], model.completion_price, model.price_unit),
        model.price_unit,
        model.currency,
    )


def text(value: Decimal) -> str:
    """Format a number without an exponent."""
    return format(value, "f")


def _price(tokens: int, price: Decimal, unit: Decimal) -> Decimal:
    cost = _EXACT.multiply(_EXACT.multiply(Decimal(tokens), price), unit)
    return cost.quantize(PLACES, context=_EXACT)
