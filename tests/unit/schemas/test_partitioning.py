from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from schemas.partitioning import (
    FORWARDED,
    MAX_ENVELOPE_BYTES,
    direct_partition,
    home_partition,
    key_spread,
    queue_number,
    stable_hash,
)
from schemas.records import Task
from tests.support.records import task, task_id

Headers = Sequence[tuple[str, bytes | None]]

queues = st.from_regex(r"[a-zA-Z0-9_-]{1,64}", fullmatch=True)


def test_the_hash_is_the_same_in_every_process_and_version() -> None:
    assert [stable_hash(text) for text in ("", "default", "队列")] == [0x1271CF25, 0xC522B539, 0x68549DFB]


@given(queue=queues, spread=st.integers(0, 2**63), width=st.integers(-1, 100), partitions=st.integers(1, 96))
def test_a_home_lies_within_the_topic(queue: str, spread: int, width: int, partitions: int) -> None:
    assert 0 <= home_partition(queue, spread, width=width, partitions=partitions) < partitions


@given(queue=queues, width=st.integers(1, 48), partitions=st.integers(1, 48))
def test_a_queue_keeps_to_its_slice_and_uses_all_of_it(queue: str, width: int, partitions: int) -> None:
    homes = {home_partition(queue, spread, width=width, partitions=partitions) for spread in range(200)}
    assert len(homes) == min(width, partitions)
    first = home_partition(queue, 0, width=width, partitions=partitions)
    assert homes == {(first + step) % partitions for step in range(min(width, partitions))}


@given(queue=queues, partitions=st.integers(1, 48))
def test_no_width_means_all_partitions(queue: str, partitions: int) -> None:
    homes = {home_partition(queue, spread, width=0, partitions=partitions) for spread in range(partitions)}
    assert homes == set(range(partitions))


@given(queue=queues)
def test_queue_numbers_fit_into_an_id(queue: str) -> None:
    assert 0 <= queue_number(queue) < 2**32


def test_a_direct_task_belongs_to_the_partition_of_its_key_unless_it_cannot_be_forwarded() -> None:
    owner = home_partition("chat", key_spread("acme", "k"), width=4, partitions=12)
    here = (owner + 1) % 12
    keyed = task(queue="chat", owner="acme", idempotency_key="k", id=None)

    def routed(one: Task, *, key: bytes | None = None, headers: Headers = ()) -> int:
        return direct_partition(one, partition=here, key=key, headers=headers, width=4, partitions=12)

    assert routed(keyed) == owner
    assert routed(keyed, key=b"k" * MAX_ENVELOPE_BYTES) == owner
    assert routed({**keyed, "idempotency_key": None}) == here
    assert routed({**keyed, "id": task_id()}) == here
    assert routed(keyed, headers=[(FORWARDED, b"1/2")]) == here
    assert routed(keyed, key=b"k" * MAX_ENVELOPE_BYTES, headers=[("x", None)]) == here
