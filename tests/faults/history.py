"""What was asked and told, and what was done to the system, with the harness's monotonic times."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

Outcome = Literal["OK", "REFUSED", "UNKNOWN"]
"""UNKNOWN: no answer came, so it may or may not have been done."""


FORGOTTEN = "-forgotten"
"""Ends the request ids of sessions that their client leaves to their maximum duration."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One request and its answer."""

    client: str
    transport: str
    kind: str
    """``create``, ``get``, ``list``, ``connect``, ``extend``, ``terminate``, ``watch``."""
    began: float
    ended: float
    outcome: Outcome
    session_id: str = ""
    request_id: str = ""
    state: str = ""
    """The session's, as answered."""
    revision: int = 0
    error: str = ""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing done to the system."""

    kind: str
    target: str
    began: float
    ended: float
    """When it was healed, as far as it was ours to heal."""
    launches: tuple[str, ...] = ()
    """The launches that it hurts directly."""
    running: tuple[str, ...] = ()
    """For an agent's death: the launches that served on its node at that moment."""
    device: str = ""
    detail: str = ""


@dataclass(slots=True)
class Recorder:
    """Keeps it all, in memory and as lines of JSON for whoever looks into a failed run."""

    path: Path | None = None
    operations: list[Operation] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    """Kind of fault -> why it cannot be done here."""
    notes: list[str] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)

    def operation(self, operation: Operation) -> None:
        self.operations.append(operation)
        self._line("operation", asdict(operation))

    def fault(self, fault: Fault) -> None:
        self.faults.append(fault)
        self._line("fault", asdict(fault))

    def note(self, text: str) -> None:
        self.notes.append(f"{time.monotonic() - self.started:8.3f} {text}")
        self._line("note", {"at": time.monotonic(), "text": text})

    def _line(self, kind: str, body: Mapping[str, Any]) -> None:
        if self.path is not None:
            with self.path.open("a") as file:
                file.write(json.dumps({kind: body}) + "\n")
