"""What the tests of the ingress share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ingress.read_model.task_view import TaskView
from tests.support.read_model import open_view


@pytest.fixture(scope="module")
def shared_view(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TaskView]:
    """Give a read model over its real store, for many examples: each begins with `emptied`."""
    with open_view(tmp_path_factory.mktemp("view")) as view:
        yield view
