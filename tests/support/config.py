"""What the tests of the settings share."""

from __future__ import annotations

from typing import Any

import pytest

from core.errors import ConfigError
from core.settings.loader import load_settings


def refusal(**arguments: Any) -> str:
    """Load settings that are refused, and return the one sentence that says why."""
    with pytest.raises(ConfigError) as refused:
        load_settings(**{"environ": {}} | arguments)
    sentence = str(refused.value)
    assert "\n" not in sentence
    return sentence
