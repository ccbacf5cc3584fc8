"""Types that several records contain."""

from __future__ import annotations

from typing import TypedDict


class Blob(TypedDict):
    uri: str
    size: int
    sha256: str


class Usage(TypedDict):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class BatchError(TypedDict):
    code: str
    message: str
    param: str | None
    line: int | None


class BatchPart(TypedDict):
    end: int
    token: str
    output_bytes: int
    error_bytes: int
    output_lines: int
    error_lines: int


class BatchChange(TypedDict):
    batch: bytes | None
    total: int
    errors: list[BatchError]
    part: BatchPart | None
    begin: int
    lines: bytes
    last: bool
