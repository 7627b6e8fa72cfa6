"""One application, one front door, one public server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import httpx2
import pytest

from footlights.auth.grants import Grants
from footlights.errors import Error
from footlights.frontdoor import FrontDoor, Limits, Target, ViewerGrant
from tests.frontdoor.application import Application, running, serving

START = datetime(2026, 1, 2, tzinfo=UTC)


class Register:
    """Who is connected, and who was disconnected by a call: as a control plane would keep it."""

    def __init__(self) -> None:
        self.connected: dict[str, list[str]] = {}
        self.gone: set[str] = set()
        self.failing: Error | None = None
        self.too_many: list[str] = []
        """The oldest connections, to be ended when the next one is noted."""

    async def connect(self, grant: ViewerGrant, connection: str) -> list[str] | None:
        if self.failing is not None:
            raise self.failing
        if grant.viewer_id in self.gone:
            return None
        self.connected.setdefault(grant.viewer_id, []).append(connection)
        return self.too_many

    async def disconnect(self, session_id: str, viewer_id: str, connection: str) -> None:
        self.connected[viewer_id].remove(connection)

    async def removed(self, viewer_ids: Collection[str]) -> set[str]:
        return self.gone & set(viewer_ids)


@dataclass
class Door:
    """The front door with everything around it."""

    application: Application
    limits: Limits = field(default_factory=Limits)
    now: datetime = START
    grants: Grants = field(default_factory=lambda: Grants(lambda: [bytes(32)]))
    targets: dict[str, Target] = field(default_factory=dict)
    host: str = ""
    register: Register = field(default_factory=Register)
    resolved: int = 0
    """How often a session was looked for."""
    late: bool = False
    """Whether a viewer's end is seen only when its connection is noted."""

    def grant(self, session_id: str = "s1", ttl_s: float = 60) -> str:
        return self.grants.mint(session_id, "ada", ttl_s, self.now)

    def pass_time(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    def target(self, state: str = "READY", **changes: object) -> Target:
        facts: dict[str, object] = {
            "address": "127.0.0.1",
            "dialled": ("127.0.0.1",),
            "signal_port": self.application.port,
            "whep_path": "/whep",
            "websocket_path": "/sign_in",
            "state": state,
        }
        return Target(**{**facts, **changes})  # type: ignore[arg-type]  # the names are Target's

    async def resolve(self, session_id: str, viewer_id: str = "") -> Target | None:
        self.resolved += 1
        found = self.targets.get(session_id)
        return found and replace(found, removed=viewer_id in self.register.gone and not self.late)

    def app(self, **options: object) -> FrontDoor:
        given = {"keys": lambda: [bytes(32)], "now": lambda: self.now, "limits": self.limits, **options}
        return FrontDoor(self.resolve, self.grants, self.register, **given)  # type: ignore[arg-type]  # the names are FrontDoor's


@pytest.fixture
async def application() -> AsyncIterator[Application]:
    async with running(Application()) as application:
        yield application


@pytest.fixture
async def door(application: Application) -> AsyncIterator[Door]:
    door = Door(application)
    door.targets["s1"] = door.target()
    async with serving(door.app()) as door.host:
        yield door


@pytest.fixture
async def client(door: Door) -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(base_url=f"http://{door.host}", timeout=10) as client:
        yield client
