"""Scenarios in which the stock OpenAI SDK, whichever version is found, sends forms; sdk_main.py runs them."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from typing import Any

import openai

MODEL = "sim-instant"
SPEECH = b"RIFF" + bytes(range(256)) * 500
LONG = b"ID3" + bytes(range(256)) * 95_000  # 24 MB
PICTURE = b"\x89PNG\r\n\x1a\n--" * 3_000


def transcription(client: openai.OpenAI) -> None:
    answer = client.audio.transcriptions.create(
        model=MODEL,
        file=("speech.wav", SPEECH),
        language="de",
        prompt="mühle",
        temperature=0.2,
        timestamp_granularities=["word", "segment"],
    )
    assert len(answer.text.split()) == 8


def transcription_in_every_format(client: openai.OpenAI) -> None:
    for form, begin in (("text", ""), ("srt", "1\n00:00:00,000 --> "), ("vtt", "WEBVTT\n\n")):
        answer: Any = client.audio.transcriptions.create(model=MODEL, file=("a.mp3", SPEECH), response_format=form)  # type: ignore[call-overload]
        assert isinstance(answer, str)
        assert answer.startswith(begin)
    verbose = client.audio.transcriptions.create(model=MODEL, file=("a.mp3", SPEECH), response_format="verbose_json")
    assert verbose.segments is not None
    assert verbose.segments[0].text == verbose.text


def transcription_of_a_long_file(client: openai.OpenAI) -> None:
    first = client.audio.transcriptions.create(model=MODEL, file=("long.mp3", LONG))
    again = client.audio.transcriptions.create(model=MODEL, file=("long.mp3", io.BytesIO(LONG)))
    assert first.text == again.text


def transcription_streamed(client: openai.OpenAI) -> None:
    events = list(client.audio.transcriptions.create(model=MODEL, file=("a.webm", SPEECH), stream=True))
    kinds = [event.type for event in events]
    assert kinds == ["transcript.text.delta"] * 8 + ["transcript.text.done"]
    text = "".join(event.delta for event in events if event.type == "transcript.text.delta")
    assert text == client.audio.transcriptions.create(model=MODEL, file=("a.webm", SPEECH)).text


def translation(client: openai.OpenAI) -> None:
    answer = client.audio.translations.create(model=MODEL, file=("speech.ogg", SPEECH), prompt="mill")
    assert len(answer.text.split()) == 8
    text: Any = client.audio.translations.create(model=MODEL, file=("speech.ogg", SPEECH), response_format="text")
    assert isinstance(text, str)


def edit_of_one_image(client: openai.OpenAI) -> None:
    answer = client.images.edit(model=MODEL, image=("a.png", PICTURE), prompt="a mill", n=2, size="1024x1024")
    assert answer.data is not None
    assert [bool(one.b64_json) for one in answer.data] == [True, True]


def edit_of_several_images_with_a_mask(client: openai.OpenAI) -> None:
    images = [("a.png", PICTURE), ("b.png", PICTURE * 40), ("c.webp", PICTURE)]
    answer = client.images.edit(model=MODEL, image=images, mask=("m.png", PICTURE), prompt="a mill")  # type: ignore[arg-type]
    assert answer.data is not None
    assert answer.data[0].b64_json


def edit_streamed(client: openai.OpenAI) -> None:
    stream = client.images.edit(model=MODEL, image=("a.png", PICTURE), prompt="a mill", stream=True, partial_images=1)
    assert [event.type for event in stream] == ["image_edit.partial_image", "image_edit.completed"]


def accepted(client: openai.OpenAI) -> None:
    raw = client.audio.transcriptions.with_raw_response.create(
        model=MODEL, file=("a.mp3", SPEECH), extra_body={"async": True}
    )
    body = json.loads(raw.text() if callable(raw.text) else raw.text)
    assert raw.http_response.status_code == 202
    assert raw.headers["location"] == f"/v1/tasks/{body['id']}"


def an_unknown_format(client: openai.OpenAI) -> None:
    try:
        client.audio.transcriptions.create(model=MODEL, file=("a.txt", SPEECH))
    except openai.BadRequestError as error:
        assert error.param == "file"  # noqa: PT017 - no pytest in this program
        assert "flac" in error.message  # noqa: PT017
    else:
        raise AssertionError("a text was taken for speech")


def too_large(client: openai.OpenAI) -> None:
    for size in (27_000_000, 40_000_000):
        try:
            client.audio.transcriptions.create(model=MODEL, file=("a.mp3", bytes(size)))
        except openai.APIStatusError as error:
            assert (error.status_code, error.code) == (413, "too_large")  # noqa: PT017
        else:
            raise AssertionError("there is no limit")


SCENARIOS: Mapping[str, Callable[[openai.OpenAI], None]] = {
    one.__name__: one
    for one in (
        transcription,
        transcription_in_every_format,
        transcription_of_a_long_file,
        transcription_streamed,
        translation,
        edit_of_one_image,
        edit_of_several_images_with_a_mask,
        edit_streamed,
        accepted,
        an_unknown_format,
        too_large,
    )
}
PREFIXES = ("/queue", "/v1")


def client_of(base_url: str, key: str) -> openai.OpenAI:
    """Make the client that the scenarios get."""
    return openai.OpenAI(api_key=key, base_url=base_url, max_retries=0, _strict_response_validation=True)
