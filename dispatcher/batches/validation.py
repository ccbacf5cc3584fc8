"""Whether a file of requests can be a batch: every line is looked at, none is kept. Pure.

A line that is no JSON is told of in the error file, as one that a model refuses; only when no line is any better it is
the file that is wrong.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b

from core.settings.batches import BatchSettings
from dispatcher.batches.input_reader import InputLine
from dispatcher.batches.request_line import BrokenLine, LineError, LineRequest, read
from schemas.common import BatchError

MAX_ERRORS = 100
DIGEST_BYTES = 16
"""Of an id that was seen: 50,000 of them take some MB, however long the ids are."""


class Validator:
    """Takes the lines in their order; `errors` is what is wrong so far, `total` how many requests there were."""

    def __init__(self, settings: BatchSettings, *, endpoint: str, one_model: bool) -> None:
        """Begin; `one_model` demands that all lines name the same model."""
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
        """Whether nothing that follows could change the verdict."""

    def add(self, lines: Iterable[InputLine]) -> None:
        """Look at the next lines."""
        for line in lines:
            if self.done:
                return
            self.total += 1
            if self.total > self._max_lines:
                self._add(LineError("too_many_tasks", f"The file has more than {self._max_lines} requests."), None)
                self.done = True
                return
            try:
                self._check(read(line.text, endpoint=self._endpoint))
            except BrokenLine as fault:
                if len(self._broken) < MAX_ERRORS:
                    self._broken.append(fault.at(line.number))
            except LineError as fault:
                self._add(fault, line.number)
            else:
                self._usable = True

    def finish(self) -> None:
        """Note that the file is over."""
        if not self.total:
            self._add(LineError("empty_batch", "The file has no requests."), None)
        elif self.errors or not self._usable:  # whoever has to mend the file is told of all that is wrong with it
            self.errors = sorted([*self.errors, *self._broken], key=lambda one: one["line"] or 0)[:MAX_ERRORS]

    def reject(self, code: str, message: str) -> None:
        """Note what is wrong with the file as a whole."""
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
