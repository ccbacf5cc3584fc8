from __future__ import annotations

from itertools import pairwise

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.usage import UsageFinder, usage_of


@pytest.mark.parametrize(
    ("body", "counts"),
    [
        (b'{"usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":4}}', (1, 2, 4)),
        (b'{"usage":{"prompt_tokens":3,"total_tokens":3}}', (3, 0, 3)),
        (b'{"usage":{"input_tokens":3,"output_tokens":4}}', (3, 4, 7)),
        (b'{"usage":{"prompt_tokens":"many","completion_tokens":-4,"total_tokens":true}}', (0, 0, 0)),
        (b'{"usage":null}', None),
        (b'["usage"]', None),
        (b'{"usage"', None),
        (b"\xff", None),
        (None, None),
    ],
)
def test_usage(body: bytes | None, counts: tuple[int, int, int] | None) -> None:
    usage = usage_of(body)
    assert (usage and (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"])) == counts


ANSWER = (
    b'{"data":[{"b64_json":"' + b"A" * 50_000 + b'"}],"usage": {"input_tokens":3,"output_tokens":4,"more":{"x":1}}}'
)


@given(st.lists(st.integers(0, len(ANSWER)), max_size=12))
def test_usage_is_found_wherever_the_text_was_cut(cuts: list[int]) -> None:
    finder = UsageFinder()
    ends = [0, *sorted(cuts), len(ANSWER)]
    for begin, end in pairwise(ends):
        finder.feed(ANSWER[begin:end])
    assert finder.usage == usage_of(ANSWER) == {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}


def test_what_only_looks_like_usage_is_passed_over() -> None:
    finder = UsageFinder()
    finder.feed(orjson.dumps({"text": 'say "usage": {"prompt_tokens": 9}'}))
    finder.feed(b'"usage":{' + b" " * 20_000)
    finder.feed(b'"usage": {broken')
    assert finder.usage is None
