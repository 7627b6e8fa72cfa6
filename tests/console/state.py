"""What the stand-in server knows, and what happens to its sessions by themselves."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.console.catalogue import fleet
from tests.console.picture import Picture

Json = dict[str, Any]
ENDED = {"TERMINATED", "FAILED"}


@dataclass
class State:
    """What the server knows. ``pace`` is the seconds between the steps of a start, ``public`` the
    origin that viewers are told, where it is not the one they asked by."""

    pace: float = 0.15
    nodes_count: int = 3
    public: str = ""
    sessions: dict[str, Json] = field(default_factory=dict)
    logs: dict[str, list[str]] = field(default_factory=dict)
    tokens: list[Json] = field(default_factory=list)
    requests: list[tuple[str, str]] = field(default_factory=list)
    created: list[Json] = field(default_factory=list)
    revoked: set[str] = field(default_factory=set)
    viewers: dict[str, list[Json]] = field(default_factory=dict)
    thrown_out: set[str] = field(default_factory=set)
    """Sessions whose viewers were disconnected by a call."""
    whep: Picture = field(default_factory=Picture)
    grants: int = 0
    """How many were given to viewers."""

    def __post_init__(self) -> None:
        self._revision = itertools.count(1)
        self._ids = itertools.count(1)
        self._changed = asyncio.Event()
        self._cut = asyncio.Event()
        self._cursors, self._refusal = 1, ""
        self._tasks: set[asyncio.Task[None]] = set()
        self._nodes = fleet(self.nodes_count)
        self.brake: Json | None = None
        self.tokens.append(self.token("OPERATOR", "admin", "the first token"))

    def token(self, role: str, subject: str, description: str) -> Json:
        token_id = f"flt{len(self.tokens) + 1:05d}"
        times = {"created_time": stamp(), "expire_time": None, "revoked_time": None}
        return {"token_id": token_id, "role": role, "subject": subject, "description": description} | times

    def refuse_cursors(self, reason: str) -> None:
        """Accept no cursor that was given out until now."""
        self._cursors, self._refusal = self._cursors + 1, reason

    def cut(self) -> None:
        """End every watch, as a proxy does that closes what is idle."""
        self._cut.set()
        self._cut = asyncio.Event()
        self._changed.set()
        self._changed = asyncio.Event()

    # What happens to sessions.

    def add(self, application: str, *, username: str = "ada", state: str = "PENDING", **members: Any) -> Json:
        """Put a session there as it is; ``members`` replace what it would be."""
        number = next(self._ids)
        session: Json = {
            "session_id": f"0198a7c2-{number:04x}-7abc-9def-{0xC0FFEE00 + number:012x}",
            "application": application,
            "application_version": "1.4.0",
            "application_arguments": {"usd_stage_uri": "", "nucleus_connection_config": []},
            "username": username,
            "created_time": stamp(),
            "ready_time": None,
            "ended_time": None,
            "state": state,
            "condition": "OK",
            "status_message": "",
            "end_reason": "END_REASON_UNSPECIFIED",
            "timeline": [{"stage": "QUEUED", "time": stamp()}],
            "queue": None,
            "node": "",
            "device": "",
            "device_name": "",
            "routes": {},
            "profile": "",
            "priority": 0,
            "labels": {},
            "request_id": "",
            "limits": {"max_duration": "14400s", "idle_timeout": "900s"},
            "log_tail": [],
            "launch_count": 0,
        }
        session.update(members)
        self.sessions[session["session_id"]] = session
        self.logs.setdefault(session["session_id"], [])
        self.change(session)
        return session

    def change(self, session: Json, **members: Any) -> None:
        """Change a session and tell those who watch."""
        session.update(members)
        session["revision"] = str(next(self._revision))
        self._changed.set()
        self._changed = asyncio.Event()

    def reach(self, session: Json, stage: str, **members: Any) -> None:
        self.change(session, timeline=[*session["timeline"], {"stage": stage, "time": stamp()}], **members)

    async def _live(self, session: Json) -> None:
        log = self.logs[session["session_id"]]
        if session["application"] == "huge":
            reasons = [
                {"reason": "NO_SLOT", "device_count": 9, "node_count": 0, "message": "NO_SLOT: 9 devices"},
                {"reason": "MEMORY", "device_count": 4, "node_count": 0, "message": "MEMORY: 4 devices"},
                {"reason": "CORDONED", "device_count": 0, "node_count": 1, "message": "CORDONED: 1 node"},
            ]
            self.change(session, queue={"position": 3, "estimated_wait_duration": "252s", "wait_reasons": reasons})
            return
        await asyncio.sleep(self.pace)
        node = self._nodes[0]
        device = node["devices"][0]
        place = {"node": node["node"], "device": device["uuid"], "device_name": device["name"], "launch_count": 1}
        self.reach(session, "PLACED", state="STARTING", queue=None, **place)
        await asyncio.sleep(self.pace)
        self.reach(session, "PROCESS_UP")
        for line in ("footlights-viewer 0.1.0", "opening stage", "stage has 242 meshes, 100120 triangles, 8 materials"):
            log.append(line)
        await asyncio.sleep(self.pace * (40 if session["application"] == "slow" else 2))
        if session["application"] == "crasher":
            log += ["compiling shaders", "Fatal: cannot open /srv/stages/missing.usd: no such file", "exiting"]
            message = "cannot open the stage /srv/stages/missing.usd: no such file; give a path below /srv/stages"
            self.reach(
                session,
                "ENDED",
                state="FAILED",
                end_reason="CRASHED",
                exit_code=3,
                status_message=message,
                ended_time=stamp(),
                log_tail=list(log),
            )
            return
        routes = {
            "127.0.0.1": {
                "routes": [
                    {"description": "signaling", "protocol": "TCP", "source_port": 8080, "destination_port": 31000},
                    {"description": "media", "protocol": "UDP", "source_port": 31001, "destination_port": 31001},
                ]
            }
        }
        self.reach(session, "APPLICATION_READY", state="READY", ready_time=stamp(), routes=routes, viewers=0)
        log.append("ready: http://127.0.0.1:31002/v1/streaming/ready")

    async def _end(self, session: Json) -> None:
        if session["state"] in ENDED or session["state"] == "TERMINATING":
            return
        self.reach(session, "ENDING", state="TERMINATING", status_message="waiting for the process to end")
        await self.whep.close(session["session_id"])
        await asyncio.sleep(self.pace)
        end = {"ended_time": stamp(), "end_reason": "USER_TERMINATED", "status_message": ""}
        self.reach(session, "ENDED", state="TERMINATED", **end)

    def _spawn(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def stamp(*, minutes: float = 0) -> str:
    """A Timestamp in JSON, now or so many minutes from now."""
    return (datetime.now(UTC) + timedelta(minutes=minutes)).isoformat().replace("+00:00", "Z")


def seconds(duration: str | None) -> int:
    return int(float((duration or "0s").removesuffix("s")))
