"""A call is repeated while what it needs is unavailable."""

from __future__ import annotations

import pytest

from core.errors import Unavailable
from core.retry import retry_unavailable


class Service:
    """Fails so many times, then returns how often it was called."""

    def __init__(self, failures: int, error: type[Exception] = Unavailable) -> None:
        self.calls = 0
        self._failures = failures
        self._error = error

    async def call(self) -> int:
        self.calls += 1
        if self.calls <= self._failures:
            raise self._error
        return self.calls


async def test_it_is_called_until_it_succeeds() -> None:
    errors: list[Unavailable] = []
    assert await retry_unavailable(Service(failures=3).call, delay_s=0, on_error=errors.append) == 4
    assert len(errors) == 3


async def test_the_error_of_the_last_try_is_raised() -> None:
    service, errors = Service(failures=5), []
    with pytest.raises(Unavailable):
        await retry_unavailable(service.call, delay_s=0, tries=3, on_error=errors.append)
    assert (service.calls, len(errors)) == (3, 2)
    assert await retry_unavailable(Service(failures=2).call, delay_s=0, tries=3) == 3


async def test_other_errors_are_raised_at_once() -> None:
    service = Service(failures=1, error=KeyError)
    with pytest.raises(KeyError):
        await retry_unavailable(service.call, delay_s=0)
    assert service.calls == 1
