"""The table that `make bench` prints: what was measured, against which bar, at what CPU cost, with which command."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("headrace", "aiokafka", "faust-streaming", "fastavro", "rocksdict", "httpx", "aiohttp", "uvicorn", "uvloop")
HEADINGS = ("what", "figure", "ratio", "CPU ms per task", "command")
RIGHT_ALIGNED = frozenset({1, 2})


@dataclass(frozen=True, slots=True)
class Row:
    """One measured figure."""

    what: str
    figure: float
    unit: str
    bar: float
    """What the figure is held against: a budget, or the same thing measured on something else."""
    bar_is: str = "bar"
    """What the ratio is to, in a word or two, such as `bar` or `Celery`."""
    lower_is_better: bool = False
    cpu_ms: Mapping[str, float] = field(default_factory=dict)
    """CPU milliseconds per task by process; empty where it was not measured."""
    command: str = ""

    @property
    def ratio(self) -> float:
        """How many times better than the bar; below 1 is a miss."""
        better, worse = (self.bar, self.figure) if self.lower_is_better else (self.figure, self.bar)
        return better / worse if worse else float("inf")


@dataclass(slots=True)
class Report:
    """Collects rows and renders them as a Markdown table that reads well in a terminal too."""

    rows: list[Row] = field(default_factory=list)

    def add(self, row: Row) -> None:
        """Add a figure."""
        self.rows.append(row)

    @property
    def missed(self) -> list[Row]:
        """List the rows that are below their bar."""
        return [row for row in self.rows if row.ratio < 1]

    def render(self) -> str:
        """Give the machine line and the table."""
        cells = [HEADINGS, *map(_cells, self.rows)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        rule = ["-" * (width - 1) + (":" if i in RIGHT_ALIGNED else "-") for i, width in enumerate(widths)]
        lines = [_line(HEADINGS, widths), _line(rule, widths), *(_line(row, widths) for row in cells[1:])]
        return "\n".join([machine_line(), "", *lines, ""])

    def as_json(self) -> dict[str, object]:
        """Give the same for a file that later runs are compared with."""
        return {"machine": machine_line(), "rows": [{**asdict(row), "ratio": row.ratio} for row in self.rows]}


def _line(cells: Iterable[str], widths: list[int]) -> str:
    padded = (
        cell.rjust(width) if index in RIGHT_ALIGNED else cell.ljust(width)
        for index, (cell, width) in enumerate(zip(cells, widths, strict=True))
    )
    return f"| {' | '.join(padded)} |".rstrip()


def _cells(row: Row) -> tuple[str, ...]:
    cpu = "not measured"
    if row.cpu_ms:
        parts = ", ".join(f"{name} {spent:.2f}" for name, spent in row.cpu_ms.items())
        cpu = f"{sum(row.cpu_ms.values()):.2f} ({parts})"
    command = f"`{row.command}`" if row.command else ""
    return (row.what, f"{_number(row.figure)} {row.unit}", f"{row.ratio:.2f}x {row.bar_is}", cpu, command)


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def machine_line() -> str:
    """Name the machine and the versions: a figure without them means nothing."""
    versions = ", ".join(f"{name} {found}" for name in PACKAGES if (found := _version(name)))
    return (
        f"{usable_cores()} cores ({_processor()}), {_memory_gb():.0f} GB, {platform.system()} {platform.release()}; "
        f"Python {platform.python_version()}; {versions}"
    )


def usable_cores() -> int:
    """Count the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def _memory_gb() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
