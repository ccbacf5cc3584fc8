"""Validation of a batch input file: every line is checked, none is stored. Pure.

A line that is not JSON is reported in the error file, like one that a model rejects; the file is rejected only when no
line is valid.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b

from core.settings.batches import BatchSettings
from dispatcher.batches.input_reader import InputLine
from dispatcher.batches.request_line import BrokenLine, LineError, LineRequest, parse_line
from schemas.common import BatchError

MAX_ERRORS = 100
DIGEST_BYTES = 16
"""Per custom_id: 50,000 digests need some MB, however long the ids are."""


class Validator:
    """Checks the lines in order; `errors` are the errors so far, `total` is the number of requests."""

    def __init__(self, settings: BatchSettings, *, endpoint: str, one_model: bool) -> None:
        """Begin; with `one_model` all lines must have the same model."""
        self._endpoint = endpoint
        self._max_lines = settings.max_lines
        self._one_model = one_model
        self._model: object = None
        self._seen: set[bytes] = set()
        self._broken: list[BatchError] = []
        self._usable = False
        self.errors: list[BatchError] = []
        self.total = 0
        self.done = False
        """Whether no further line can change the result."""

    def add(self, lines: Iterable[InputLine]) -> None:
        """Check the next lines."""
        for line in lines:
            if self.done:
                return
            self.total += 1
            if self.total > self._max_lines:
                self._add(LineError("too_many_tasks", f"The file has more than {self._max_lines} requests."), None)
                self.done = True
                return
            try:
                self._check(parse_line(line.text, endpoint=self._endpoint))
            except BrokenLine as fault:
                if len(self._broken) < MAX_ERRORS:
                    self._broken.append(fault.at(line.number))
            except LineError as fault:
                self._add(fault, line.number)
            else:
                self._usable = True

    def finish(self) -> None:
        """Finish after the last line."""
        if not self.total:
            self._add(LineError("empty_batch", "The file has no requests."), None)
        elif self.errors or not self._usable:  # the batch fails: report the invalid lines as well
            self.errors = sorted([*self.errors, *self._broken], key=lambda one: one["line"] or 0)[:MAX_ERRORS]

    def reject(self, code: str, message: str) -> None:
        """Add an error of the file as a whole."""
        self._add(LineError(code, message), None)
        self.done = True

    def _check(self, request: LineRequest) -> None:
        name = request.custom_id or ""
        digest = blake2b(name.encode(errors="surrogatepass"), digest_size=DIGEST_BYTES).digest()
        if digest in self._seen:
            message = f"The custom_id {name[:200]!r} is used by an earlier line."
            raise LineError("duplicate_custom_id", message, "custom_id")
        self._seen.add(digest)
        if self._one_model:
            model = request.body.get("model")
            if len(self._seen) == 1:
                self._model = model
            elif model != self._model:
                raise LineError("model_mismatch", "All lines of this batch must name the same model.", "body.model")

    def _add(self, fault: LineError, number: int | None) -> None:
        self.errors.append(fault.at(number))
        self.done = len(self.errors) >= MAX_ERRORS
