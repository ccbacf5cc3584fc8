"""The frames of a task, put together in whatever order its records come."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import InvalidRequest
from ingress.http import sse
from ingress.task_events.transcript import PART_BYTES, EventPosition, Run, Transcript, parse
from schemas.records import Chunk, Result
from tests.support.results import result_of

FRAMES = [b"one", b"two", b"three\nlines", b"four", b"five"]
RUN = Run(1, "w1")


def chunk(seq: int, *frames: bytes, attempt: int = 1, worker: str = "w1") -> Chunk:
    return {
        "id": "T",
        "attempt": attempt,
        "worker": worker,
        "seq": seq,
        "frames": list(frames or FRAMES[seq : seq + 1]),
        "events": [],
    }


def outcome(**changes: Any) -> Result:
    return result_of("T", **{"mode": "streaming", "content_type": sse.MEDIA_TYPE, "chunks": 5} | changes)


def everything(transcript: Transcript, frame: int = 0) -> bytes:
    out = b""
    while frame < transcript.end:
        taken = transcript.take(frame)
        assert taken.next > frame
        out, frame = out + taken.data, taken.next
    return out


def framed(run: Run = RUN, begin: int = 0, frames: list[bytes] = FRAMES) -> bytes:
    ids = (f"id: {run.tag}-{number}\n".encode() for number in range(begin + 1, len(frames) + 1))
    return b"".join(map(bytes.__add__, ids, map(sse.frame, frames[begin:])))


def test_an_id_looks_like_this() -> None:
    transcript = Transcript()
    transcript.add(chunk(0, b'{"n":1}', b"two\nlines"), 7)
    assert everything(transcript) == (
        b'id: 1-2f8aa4a1-1\ndata: {"n":1}\n\nid: 1-2f8aa4a1-2\ndata: two\ndata: lines\n\n'
    )


@given(st.permutations(range(5)), st.lists(st.integers(0, 4)), st.integers(0, 5))
def test_any_order_and_any_repeats_give_the_same_bytes(order: list[int], repeats: list[int], cut: int) -> None:
    transcript = Transcript()
    for offset, seq in enumerate([*repeats, *order, *repeats]):
        transcript.add(chunk(seq), offset)
    assert everything(transcript, cut) == framed(begin=cut)


@given(st.lists(st.sampled_from([0, 1, 2, 3, 4, "outcome"]), max_size=12), st.integers(0, 5))
def test_the_outcome_gives_the_same_bytes_as_the_chunks(steps: list[Any], cut: int) -> None:
    """Whatever chunks came, and whenever a viewer took what was there: nothing is missing, nothing comes twice."""
    transcript = Transcript()
    got, frame = b"", cut
    for offset, step in enumerate([*steps, "outcome"]):
        if step != "outcome":
            transcript.add(chunk(step), offset)
        elif not transcript.settled:
            transcript.finish(outcome(), FRAMES)
        if frame < transcript.end:
            taken = transcript.take(frame)
            got, frame = got + taken.data, taken.next
    assert got + everything(transcript, frame) == framed(begin=cut)
    assert transcript.whole


def test_repeats_do_not_use_up_the_room_for_what_comes_early() -> None:
    transcript = Transcript()
    for offset, seq in enumerate([*range(100), *range(100), 101, 100]):
        transcript.add(chunk(seq, b"x"), offset)
    assert transcript.end == 102


def test_a_gap_ends_what_can_be_taken_from_chunks() -> None:
    transcript = Transcript()
    for seq in (0, 2, 3):
        transcript.add(chunk(seq), seq)
    assert everything(transcript) == framed(frames=FRAMES[:1])
    transcript.finish(outcome(chunks=4), None)
    assert not transcript.whole


def test_chunks_alone_make_a_whole_text_when_none_is_missing() -> None:
    transcript = Transcript()
    for seq in range(5):
        transcript.add(chunk(seq), seq)
    transcript.finish(outcome(body=None), None)
    assert transcript.whole
    assert everything(transcript) == framed()


def test_a_later_run_takes_over_and_the_one_that_was_left_stays_away() -> None:
    transcript = Transcript()
    assert transcript.add(chunk(0, b"old"), 0)
    assert transcript.add(chunk(0, worker="w2"), 1)
    assert not transcript.add(chunk(1, b"late"), 2)
    assert not transcript.add(chunk(0, attempt=1, worker="w1"), 3)
    assert everything(transcript) == framed(Run(1, "w2"), frames=FRAMES[:1])
    transcript.add(chunk(0, attempt=2), 4)
    assert not transcript.add(chunk(1, worker="w3"), 5)  # an attempt before this one
    assert transcript.run == Run(2, "w1")


def test_the_outcome_says_which_run_counts() -> None:
    transcript = Transcript()
    transcript.add(chunk(0), 0)
    transcript.add(chunk(0, b"other", worker="w2"), 1)
    transcript.finish(outcome(), FRAMES)
    assert everything(transcript) == framed()
    assert not transcript.add(chunk(0, attempt=9), 2)


def test_many_frames_are_let_go_and_can_be_found_again() -> None:
    transcript = Transcript(window_bytes=300_000)
    for seq in range(100):
        transcript.add(chunk(seq, b"%05d" % seq * 2000), seq * 3)
    assert 0 < transcript.first < transcript.end == 100
    assert sum(len(frame) for frame in transcript._frames) <= 600_000
    for frame in (0, 1, transcript.first - 1):
        mark = transcript.mark(frame)
        assert mark is not None
        assert mark.frame <= frame
        assert (mark.seq, mark.offset) == (mark.frame, mark.frame * 3)
        assert frame - mark.frame <= PART_BYTES // 10_000 + 1


def test_viewers_at_one_place_share_the_bytes_and_get_them_in_pieces() -> None:
    transcript = Transcript()
    for seq in range(30):
        transcript.add(chunk(seq, b"x" * 10_000), seq)
    assert transcript.take(3).data is transcript.take(3).data
    assert len(transcript.take(3).data) < PART_BYTES + 11_000
    assert transcript.take(30).data == b""


@pytest.mark.parametrize(
    ("text", "position"),
    [
        ("1-0a1b2c3d-17", EventPosition("1-0a1b2c3d", 17)),
        ("0", EventPosition(None, 0)),
        ("12", EventPosition(None, 12)),
    ],
)
def test_positions(text: str, position: EventPosition) -> None:
    assert parse(text, field="from") == position


@pytest.mark.parametrize(
    "text", ["", "x", "-1", "1.5", "1-2", "0-0a1b2c3d-1", "1-0a1b2c3d-", "1-0A1B2C3D-1", "1" * 10, "١"]
)
def test_what_is_no_position(text: str) -> None:
    with pytest.raises(InvalidRequest, match="from must be"):
        parse(text, field="from")
