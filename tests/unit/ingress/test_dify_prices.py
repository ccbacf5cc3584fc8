from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.settings.models import ModelSettings
from ingress.api.dify.prices import tokens_in, usage_object

AMOUNTS = st.integers(0, 2**63 - 1)


def priced(prompt: int, completion: int, **model: object) -> dict[str, object]:
    counts = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
    return usage_object(counts, ModelSettings.model_validate(model) if model else None, latency_s=0.5)  # type: ignore[arg-type]


def test_the_example_of_the_source() -> None:
    assert priced(1033, 128, prompt_price="0.001", completion_price="0.002", price_unit="0.001") == {
        "prompt_tokens": 1033,
        "prompt_unit_price": "0.001",
        "prompt_price_unit": "0.001",
        "prompt_price": "0.0010330",
        "completion_tokens": 128,
        "completion_unit_price": "0.002",
        "completion_price_unit": "0.001",
        "completion_price": "0.0002560",
        "total_tokens": 1161,
        "total_price": "0.0012890",
        "currency": "USD",
        "latency": 0.5,
    }


@pytest.mark.parametrize(
    ("tokens", "price", "expected"),
    [
        (1, "0.00005", "0.0000001"),  # half goes up
        (1, "0.00004999", "0.0000000"),
        (3, "0.00015", "0.0000005"),  # 0.00000045
        (0, "1", "0.0000000"),
        (10**18, "1000000", "1000000000000000000000.0000000"),
    ],
)
def test_rounding(tokens: int, price: str, expected: str) -> None:
    assert priced(tokens, 0, prompt_price=price)["prompt_price"] == expected


@pytest.mark.parametrize("model", [{}, {"sync": False}])
def test_an_unknown_price_is_plainly_zero(model: dict[str, object]) -> None:
    usage = priced(7, 8, **model)
    assert {value for name, value in usage.items() if "price" in name} == {"0"}
    assert usage["currency"] == "USD"


def test_a_currency_of_its_own() -> None:
    assert priced(1, 1, completion_price="3", currency="EUR")["currency"] == "EUR"


@given(AMOUNTS, AMOUNTS, st.decimals(0, 10**6, places=6), st.decimals(0, 10**6, places=6))
def test_prices_are_plain_decimals_and_add_up(prompt: int, completion: int, first: Decimal, second: Decimal) -> None:
    usage = priced(prompt, completion, prompt_price=first, completion_price=second)
    texts = [usage[name] for name in ("prompt_price", "completion_price", "total_price")]
    assert all(isinstance(text, str) and "E" not in text.upper() for text in texts)
    if texts[2] != "0":
        units = [int(str(text).replace(".", "")) for text in texts]
        assert units[0] + units[1] == units[2]


def test_tokens_are_estimated_by_bytes() -> None:
    assert [tokens_in(text) for text in ("", "a", "abcd", "abcde", "é" * 4)] == [0, 1, 1, 2, 2]
