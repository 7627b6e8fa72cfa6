"""What must survive the agent: one file a launch, on disk before anything is executed.

After a crash at any instant there is the old entry or the new one. An entry whose checksum is wrong is moved aside and
reported, and affects no other launch.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from google.protobuf import json_format

from footlights.agent.v1.agent_pb2 import Assignment, LaunchReport
from footlights.launch.plan import from_json, to_json
from footlights.linux import files

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from google.protobuf.message import Message

    from footlights.launch.launcher import LaunchPlan

_FORMAT = 1
_STRIPES = 64
_LAUNCH_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """All that the next agent must know of a launch."""

    assignment: Assignment
    """As last assigned, without its secrets and notice."""
    plan: LaunchPlan
    secret: str = field(default="", repr=False)
    """The launch's own: the next agent must present and check it, and is not sent it again."""
    begun: bool = False
    """Whether the launcher may have been asked to start it: it is never asked twice."""
    boot_id: str = ""
    """The boot that ``marks`` belong to."""
    marks: Mapping[str, float] = field(default_factory=dict)
    """Seconds of the boot-time clock, by what happened then."""
    ever_connected: bool = False
    ending: tuple[str, str, str] | None = None
    """State, reason and message that its end was decided to be, while it is not proved yet."""
    final: LaunchReport | None = None
    """How it ended; reported until the control plane says that it is recorded."""

    @property
    def launch_id(self) -> str:
        """Its launch's id."""
        return self.assignment.launch_id


@dataclass(frozen=True, slots=True)
class Restored:
    """What was found on disk."""

    entries: tuple[JournalEntry, ...]
    quarantined: tuple[str, ...]
    """A sentence for every file that could not be understood and was moved aside."""


class JournalError(Exception):
    """The journal cannot be written (no space, a bad disk): nothing may be begun now."""


def is_safe(launch_id: str) -> bool:
    """Whether an id can be a file's name."""
    return _LAUNCH_ID.fullmatch(launch_id) is not None


class Journal:
    """The entries in a directory. Every method blocks on the disk: call it off the event loop."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._turns = tuple(threading.Lock() for _ in range(_STRIPES))

    def restore(self) -> Restored:
        """Read every entry; move those that cannot be understood to ``quarantine``. Raises JournalError."""
        entries: list[JournalEntry] = []
        quarantined: list[str] = []
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            paths = sorted(self._directory.iterdir())
        except OSError as error:
            raise JournalError(f"the journal in {self._directory} cannot be read: {error}") from error
        for path in paths:
            if files.is_draft(path) or path.suffix == ".new":
                with contextlib.suppress(OSError):
                    path.unlink()  # a write that was cut off before its rename: never acted on
            elif path.suffix == ".json":
                try:
                    entries.append(_read(path))
                except (OSError, ValueError, KeyError, TypeError, json_format.ParseError) as error:
                    quarantined.append(f"{path.name}: {error}; moved to {self._quarantine(path)}")
        return Restored(tuple(entries), tuple(quarantined))

    def write(self, entry: JournalEntry) -> None:
        """Put an entry on disk, in place of the launch's former one; durable on return. Raises JournalError."""
        path = self._path(entry.launch_id)
        with self._turn(entry.launch_id):
            try:
                files.replace_file(path, _encode(entry))
            except OSError as error:
                raise JournalError(f"the journal in {self._directory} cannot be written: {error}") from error

    def remove(self, launch_id: str) -> None:
        """Forget a launch; one that is not there is forgotten already. Raises JournalError: the disk refuses."""
        path = self._path(launch_id)
        try:
            with self._turn(launch_id):
                path.unlink(missing_ok=True)
                files.sync_directory(self._directory)
        except OSError as error:
            raise JournalError(f"{launch_id} cannot be removed from the journal: {error}") from error

    def _turn(self, launch_id: str) -> threading.Lock:
        """The lock of one launch's writes; others sync beside them."""
        return self._turns[hash(launch_id) % _STRIPES]

    def _path(self, launch_id: str) -> Path:
        if not is_safe(launch_id):
            raise JournalError(f"launch id {launch_id!r} cannot be a file's name")
        return self._directory / f"{launch_id}.json"

    def _quarantine(self, path: Path) -> Path:
        place = self._directory / "quarantine"
        target = place / path.name
        with contextlib.suppress(OSError):
            place.mkdir(mode=0o700, exist_ok=True)
            os.replace(path, target)
        return target


def read_entries(directory: Path) -> Iterator[JournalEntry]:
    """Read the entries that can be understood, and change nothing: for others than the agent."""
    for path in sorted(directory.glob("*.json")):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, json_format.ParseError):
            yield _read(path)


def _encode(entry: JournalEntry) -> bytes:
    assignment = Assignment()
    assignment.CopyFrom(entry.assignment)
    assignment.ClearField("secrets")
    assignment.ClearField("launch_secret")
    assignment.ClearField("notice")  # its time counts from when it was sent: the next agent is sent it again
    body: dict[str, Any] = {
        "format": _FORMAT,
        "assignment": _to_dict(assignment),
        "plan": json.loads(to_json(entry.plan)),
        "secret": entry.secret,
        "begun": entry.begun,
        "boot_id": entry.boot_id,
        "marks": dict(entry.marks),
        "ever_connected": entry.ever_connected,
        "ending": list(entry.ending) if entry.ending else None,
        "final": _to_dict(entry.final) if entry.final is not None else None,
    }
    return json.dumps({"sha256": _digest(body), "entry": body}, indent=1, sort_keys=True).encode()


def _read(path: Path) -> JournalEntry:
    document = json.loads(path.read_bytes())
    if not isinstance(document, dict) or not isinstance(document.get("entry"), dict):
        raise ValueError("is not an entry")
    body = document["entry"]
    if document.get("sha256") != _digest(body):
        raise ValueError("its checksum is wrong")
    if body["format"] != _FORMAT:
        raise ValueError(f"has format {body['format']}, this agent knows {_FORMAT}")
    entry = JournalEntry(
        assignment=json_format.ParseDict(body["assignment"], Assignment(), ignore_unknown_fields=True),
        plan=from_json(json.dumps(body["plan"])),
        secret=body.get("secret", ""),
        begun=body["begun"],
        boot_id=body["boot_id"],
        marks=body["marks"],
        ever_connected=body["ever_connected"],
        ending=tuple(body["ending"]) if body["ending"] else None,
        final=json_format.ParseDict(body["final"], LaunchReport(), ignore_unknown_fields=True)
        if body["final"] is not None
        else None,
    )
    if path.stem != entry.launch_id:
        raise ValueError(f"holds launch {entry.launch_id!r}")
    return entry


def _to_dict(message: Message) -> dict[str, Any]:
    return json_format.MessageToDict(message, preserving_proto_field_name=True)


def _digest(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
