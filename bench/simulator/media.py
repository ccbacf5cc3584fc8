"""Right answers of the endpoints that are not text to text: embeddings, audio, images, models."""

from __future__ import annotations

import base64
import struct
import zlib
from array import array
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import orjson

from bench.simulator.answers import CREATED, Answer, digest, error, padded, pieces, stream
from bench.simulator.behaviour import PRESETS, Behaviour

DIMENSIONS = 16
SAMPLE_RATE = 8_000
AUDIO_TYPES = {"mp3": "audio/mpeg", "opus": "audio/ogg", "aac": "audio/aac", "flac": "audio/flac", "wav": "audio/wav"}
PLAIN_FORMATS = {
    "text": "{}\n",
    "srt": "1\n00:00:00,000 --> 00:00:01,000\n{}\n",
    "vtt": "WEBVTT\n\n00:00.000 --> 00:01.000\n{}\n",
}
MODEL_NAMES = (*PRESETS, "vendor/sim")


def embeddings(body: Mapping[str, Any], behaviour: Behaviour) -> Answer:
    """Answer POST /v1/embeddings: unit-range vectors made from the digest of each input."""
    given = body.get("input")
    if not isinstance(given, str | list) or not given:
        return error(400, "input must be a string or a list.", param="input")
    inputs = [given] if isinstance(given, str) or isinstance(given[0], int) else given
    dimensions = body.get("dimensions", DIMENSIONS)
    if not isinstance(dimensions, int) or not 1 <= dimensions <= 65_536:
        return error(400, "dimensions must be an integer from 1 to 65536.", param="dimensions")
    packed = body.get("encoding_format") == "base64"
    data = []
    for index, item in enumerate(inputs):
        vector = _vector(digest(item), dimensions)
        value = base64.b64encode(vector.tobytes()).decode("ascii") if packed else vector.tolist()
        data.append({"object": "embedding", "index": index, "embedding": value})
    tokens = max(1, len(orjson.dumps(inputs)) // 4)
    answer = {
        "object": "list",
        "data": data,
        "model": body.get("model"),
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }
    return padded(orjson.dumps(answer), behaviour.size)


def _vector(mark: str, dimensions: int) -> array[float]:
    state, values = int(mark, 16), array("f")
    for _ in range(dimensions):
        state = (state * 6_364_136_223_846_793_005 + 1_442_695_040_888_963_407) % (1 << 64)
        values.append((state >> 40) / (1 << 23) - 1.0)
    return values


def transcription(body: Mapping[str, Any], behaviour: Behaviour) -> Answer:
    """Answer POST /v1/audio/transcriptions and /translations in the format that was asked for."""
    if "file" not in body:
        return error(400, "file is required.", param="file")
    words = pieces(digest(body["file"]), behaviour.tokens)
    text = "".join(words)
    if body.get("stream") in {True, "true"}:
        events: list[dict[str, Any]] = [{"type": "transcript.text.delta", "delta": word} for word in words]
        return stream([*events, {"type": "transcript.text.done", "text": text}], behaviour)
    form = str(body.get("response_format", "json"))
    if form in PLAIN_FORMATS:
        return Answer(content_type="text/plain; charset=utf-8", body=PLAIN_FORMATS[form].format(text).encode())
    answer: dict[str, Any] = {"text": text}
    if form == "verbose_json":
        segment = {
            "id": 0,
            "seek": 0,
            "start": 0.0,
            "end": 1.0,
            "text": text,
            "tokens": [],
            "temperature": 0.0,
            "avg_logprob": -0.1,
            "compression_ratio": 1.0,
            "no_speech_prob": 0.0,
        }
        answer = {"task": "transcribe", "language": "english", "duration": 1.0, "text": text, "segments": [segment]}
    return padded(orjson.dumps(answer), behaviour.size)


def speech(body: Mapping[str, Any], behaviour: Behaviour) -> Answer:
    """Answer POST /v1/audio/speech: a playable WAV, 10 ms a word, whatever type is asked for and named."""
    if not isinstance(body.get("input"), str):
        return error(400, "input must be a string.", param="input")
    level = int(digest(body["input"])[:2], 16)
    samples = bytes([level]) * (behaviour.tokens * SAMPLE_RATE // 100)
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, SAMPLE_RATE, SAMPLE_RATE, 1, 8)
    content = b"WAVE" + form + struct.pack("<4sI", b"data", len(samples)) + samples
    kind = AUDIO_TYPES.get(str(body.get("response_format", "mp3")), "application/octet-stream")
    return Answer(content_type=kind, body=struct.pack("<4sI", b"RIFF", len(content)) + content)


def images(body: Mapping[str, Any], behaviour: Behaviour) -> Answer:
    """Answer POST /v1/images/*: one-pixel PNGs whose colour comes from the prompt, or addresses when asked for."""
    count = body.get("n", 1)
    if not str(count).isdigit() or not 1 <= int(count) <= 10:
        return error(400, "n must be an integer from 1 to 10.", param="n")
    mark = digest([body.get("prompt"), body.get("image")])
    if body.get("stream") in {True, "true"}:
        return _image_stream(body, behaviour, mark)
    if body.get("response_format") == "url":
        data = [{"url": f"https://images.example/{mark}-{index}.png"} for index in range(int(count))]
    else:
        data = [{"b64_json": base64.b64encode(_png(mark, index)).decode("ascii")} for index in range(int(count))]
    answer = {"created": CREATED, "data": data, "usage": _image_usage(behaviour)}
    return padded(orjson.dumps(answer), behaviour.size)


def _image_stream(body: Mapping[str, Any], behaviour: Behaviour, mark: str) -> Answer:
    """Give the partial images and the whole one, each as an event with a name."""
    kind = "image_edit" if "image" in body or "image[]" in body else "image_generation"
    base = {"created_at": CREATED, "background": "opaque", "output_format": "png", "quality": "low", "size": "auto"}
    partial = int(body.get("partial_images") or 0)
    events: list[dict[str, Any]] = []
    for index in range(partial + 1):
        picture = {"b64_json": base64.b64encode(_png(mark, index)).decode("ascii"), **base}
        if index < partial:
            events.append({"type": f"{kind}.partial_image", **picture, "partial_image_index": index})
        else:
            events.append({"type": f"{kind}.completed", **picture, "usage": _image_usage(behaviour)})
    plain = stream(events, behaviour)
    named = [
        b"event: %b\n%b" % (event["type"].encode(), frame) for event, frame in zip(events, plain.frames, strict=False)
    ]
    return replace(plain, frames=[*named, *plain.frames[len(events) :]])


def _image_usage(behaviour: Behaviour) -> dict[str, Any]:
    return {
        "input_tokens": 1,
        "input_tokens_details": {"text_tokens": 1, "image_tokens": 0},
        "output_tokens": behaviour.tokens,
        "total_tokens": 1 + behaviour.tokens,
    }


def _png(mark: str, index: int) -> bytes:
    pixel = bytes.fromhex(mark[:4]) + bytes([index])
    parts = [
        (b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(b"\0" + pixel)),
        (b"IEND", b""),
    ]
    chunks = (struct.pack(">I", len(d)) + t + d + struct.pack(">I", zlib.crc32(t + d)) for t, d in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def model(name: str) -> dict[str, Any]:
    """Describe a model."""
    return {"id": name, "object": "model", "created": CREATED, "owned_by": "simulator"}


def models(names: tuple[str, ...] = MODEL_NAMES) -> Answer:
    """Answer GET /v1/models."""
    return Answer(body=orjson.dumps({"object": "list", "data": [model(name) for name in names]}))
