"""What a measurement gives, the table that a person reads, and the file that a program reads."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil


@dataclass(frozen=True, slots=True)
class Figure:
    """One named number, sampled once a round."""

    name: str
    samples: Sequence[float]
    unit: str
    what: str
    goal: str = ""

    @property
    def median(self) -> float:
        """The figure itself."""
        return statistics.median(self.samples)


@dataclass(frozen=True, slots=True)
class Bench:
    """One measurement: which figures it gives, and how it is taken, in a directory of its own."""

    figures: tuple[str, ...]
    measure: Callable[[Path], Awaitable[list[Figure]]]


def table(figures: Iterable[Figure]) -> str:
    """Return the figures as aligned plain text."""
    rows = [("figure", "median", "min", "max", "n", "goal", "what")]
    for figure in figures:
        numbers = (figure.median, min(figure.samples), max(figure.samples))
        median, low, high = (f"{number:.3g} {figure.unit}".strip() for number in numbers)
        rows.append((figure.name, median, low, high, str(len(figure.samples)), figure.goal, figure.what))
    widths = [max(len(row[column]) for row in rows) for column in range(6)]
    return "\n".join("  ".join((*map(str.ljust, row, widths), row[6])).rstrip() for row in rows)


def machine() -> str:
    """Describe the machine in one line, and what else it has been doing for a second."""
    busy = psutil.cpu_percent(interval=1.0) / 100 * (os.cpu_count() or 1)
    model = platform.processor() or platform.machine()
    for line in _lines(Path("/proc/cpuinfo")):
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    memory = next((int(line.split()[1]) for line in _lines(Path("/proc/meminfo")) if line.startswith("MemTotal")), 0)
    return (
        f"{os.cpu_count()} cores ({model}), {memory / 2**20:.0f} GiB, {platform.system()} {platform.release()}, "
        f"Python {platform.python_version()}; {busy:.1f} cores were busy with something else before"
    )


def merge(path: Path, figures: Iterable[Figure]) -> None:
    """Put the medians into the flat JSON object at ``path``; what else is there stays."""
    known: dict[str, float] = json.loads(path.read_text()) if path.exists() else {}
    known |= {figure.name: float(f"{figure.median:.4g}") for figure in figures}
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".tmp")
    draft.write_text(json.dumps(known, indent=2, sort_keys=True) + "\n")
    draft.replace(path)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
