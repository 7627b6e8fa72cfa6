"""What a unit wrote, from the sessions' namespace of the node's journal, by journalctl(1).

The node's own entries are looked at too: there are those of systemd itself, and of units of an earlier release.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from typing import Any, Final

from footlights.launch.launcher import LogPart
from footlights.launch.systemd.unit import JOURNAL

READ_BYTES: Final = 1 << 20
TIMEOUT_S: Final = 20.0
_CURSOR: Final = re.compile(r"[a-z]=[0-9a-f]{1,32}(;[a-z]=[0-9a-f]{1,32}){1,8}")
_FAILED: Final = ("Failed to ", "Failed at ")
_ENTRY_BYTES: Final = 4 << 20


class UnitJournalError(Exception):
    """The journal could not be read."""


class UnitJournal:
    """Reads the journal of the node."""

    def __init__(self, *, program: str = "journalctl") -> None:
        self._program = program

    async def read(self, unit: str, *, tail_lines: int = 0, cursor: str = "") -> LogPart:
        """Read as `Launcher.log` does; a malformed cursor is the beginning. Raises UnitJournalError."""
        cursor = cursor if _CURSOR.fullmatch(cursor) else ""
        if tail_lines > 0:
            # One more says whether there is more; the newest first, for they are wanted where that is too much.
            choice = ["--reverse", f"--lines={tail_lines + 1}"]
        else:
            choice = [f"--after-cursor={cursor}"] if cursor else []
        fields = "--output-fields=MESSAGE"
        matches = [f"_SYSTEMD_UNIT={unit}", "_TRANSPORT=stdout"]
        entries, cut = await self._entries("--output=json", "--all", fields, *choice, *matches)
        truncated = False
        if tail_lines > 0:
            truncated = len(entries) > tail_lines or cut
            entries = entries[:tail_lines][::-1]
        return LogPart(
            lines=tuple(_text(entry.get("MESSAGE")) for entry in entries),
            truncated=truncated,
            cursor=str(entries[-1]["__CURSOR"]) if entries else cursor,
        )

    async def complaints(self, unit: str) -> str:
        """Return what systemd said of a unit that did not start; empty where that is not known."""
        try:
            await self.flush()
            # The first is said by what was to become the application, the second by systemd itself.
            sources = [f"_SYSTEMD_UNIT={unit}", "_TRANSPORT=journal", "+", f"UNIT={unit}", "_PID=1"]
            entries, _ = await self._entries("--output=json", "--lines=16", *sources)
        except UnitJournalError:
            return ""
        said = [_text(entry.get("MESSAGE")).removeprefix(f"{unit}: ") for entry in entries]
        return "; ".join(
            each for each in said if "failed: " in each or (each.startswith("Failed ") and unit not in each)
        )

    async def flush(self) -> None:
        """Return when everything is in the journal that was written before. Raises UnitJournalError."""
        await self._run("--sync")
        # Its journald is there while a unit needs it, and writes everything down when it ends.
        with contextlib.suppress(UnitJournalError):
            await self._run(f"--namespace={JOURNAL}", "--sync")

    async def _entries(self, *arguments: str) -> tuple[list[dict[str, Any]], bool]:
        """Return the entries, and whether there were too many to return."""
        said, cut = await self._run("--quiet", "--no-pager", f"--namespace=+{JOURNAL}", *arguments)
        return [json.loads(line) for line in said.split(b"\n") if line], cut

    async def _run(self, *arguments: str) -> tuple[bytes, bool]:
        """Run the command; return lines of its output, up to ``READ_BYTES`` and a line, and whether there is more."""
        try:
            process = await asyncio.create_subprocess_exec(
                self._program,
                *arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                limit=_ENTRY_BYTES,
            )
        except OSError as error:
            raise UnitJournalError(f"{self._program} cannot be run: {error}") from error
        assert process.stdout is not None
        assert process.stderr is not None
        said, cut = bytearray(), False
        try:
            async with asyncio.timeout(TIMEOUT_S):
                while line := await process.stdout.readline():
                    said += line
                    if len(said) >= READ_BYTES:
                        cut = True
                        break
                complaint = b"" if cut else await process.stderr.read(4096)
        except TimeoutError:
            raise UnitJournalError(f"{self._program} did not end within {TIMEOUT_S:g} s") from None
        except ValueError as error:
            raise UnitJournalError(f"{self._program} wrote a line that is too long: {error}") from error
        finally:
            if process.returncode is None and (cut or not process.stdout.at_eof()):
                process.kill()
            code = await process.wait()
        if code != 0 and not cut:
            raise UnitJournalError(f"{self._program} failed: {complaint.decode('utf-8', 'replace').strip()[:500]}")
        return bytes(said), cut


def _text(message: object) -> str:
    """Return a field's text: journalctl writes bytes that are no text as numbers."""
    if isinstance(message, list):
        return bytes(message).decode("utf-8", "replace")
    return "" if message is None else str(message)
