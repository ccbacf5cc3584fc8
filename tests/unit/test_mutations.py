"""Every mutation of the catalogue can still be made: its text stands once in its file, and its tests exist."""

from __future__ import annotations

import pytest

from tests.mutations.catalogue import MUTATIONS, Mutation
from tests.mutations.find import nodes_of, occurrences


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_a_mutation_can_be_made_and_names_its_tests(mutation: Mutation) -> None:
    assert occurrences(mutation) == 1, f"{mutation.file} has changed; bring its entry in tests/mutations up to date"
    assert len(nodes_of(mutation)) == len(mutation.tests)


def test_no_two_mutations_have_one_name() -> None:
    assert len({mutation.name for mutation in MUTATIONS}) == len(MUTATIONS)
