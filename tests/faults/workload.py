"""Clients that use the service while it is being hurt, as their code would: they retry with the same request id."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.faults.calls import JSON, Caller, Grpc, Refused, Rest, Unknown
from tests.faults.history import FORGOTTEN, Recorder

_SHARES = {
    "fake": 34, "fake-slow": 6, "fake-brief": 6, "fake-crash": 4, "fake-broken": 4,
    "app": 14, "app-family": 12, "app-stubborn": 8, "app-slow": 8, "app-brief": 8,
}  # fmt: skip
_ENDED = ("TERMINATED", "FAILED")
_READY_WAIT_S = 45.0
_GIVE_UP_S = 60.0
_BROKEN_WAIT_S = 6.0
"""How long somebody waits for an application that never starts: it may be blocked for long."""


@dataclass(slots=True)
class Workload:
    """So many clients, each with a life of its own drawn from the seed."""

    http: str
    grpc: str
    token: str
    recorder: Recorder
    seed: int
    clients: int = 6
    longest_hold_s: float = 20.0
    vanish: asyncio.Event = field(default_factory=asyncio.Event)
    """Set by the schedule: the next requests of all clients are cut off in the middle."""
    vanished: int = 0
    stopping: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        """Work until ``stopping`` is set and everyone has got an answer."""
        async with asyncio.TaskGroup() as group:
            for index in range(self.clients):
                group.create_task(self._client(index), name=f"client-{index}")

    async def _client(self, index: int) -> None:
        chance = random.Random(f"{self.seed}/client/{index}")
        transport = Rest(self.http, self.token) if index % 2 == 0 else Grpc(self.grpc, self.token)
        caller = Caller(f"client-{index}", transport, self.recorder)
        try:
            for number in itertools.count():
                if self.stopping.is_set():
                    return
                await self._session(caller, chance, f"{caller.client}-{number}")
                await self._rest(chance.uniform(0.0, 0.4))
        finally:
            await transport.close()

    async def _session(self, caller: Caller, chance: random.Random, request_id: str) -> None:
        application = chance.choices(list(_SHARES), weights=list(_SHARES.values()))[0]
        forgotten = chance.random() < 0.12
        if forgotten:
            request_id += FORGOTTEN
        longest = "12s" if forgotten else "3600s"
        body: JSON = {"application": application, "request_id": request_id, "max_duration": longest}
        session_id = await self._create(caller, chance, body)
        if not session_id:
            return
        if chance.random() < 0.2:
            with contextlib.suppress(Unknown, Refused):
                await caller.call("create", body=body)
        patience = _BROKEN_WAIT_S if application == "fake-broken" else _READY_WAIT_S
        ready = await (self._watch if chance.random() < 0.4 else self._poll)(caller, session_id, patience)
        if ready and not forgotten and chance.random() < 0.4:
            await self._use(caller, chance, session_id)
        long = chance.random() < 0.3
        await self._rest(chance.uniform(3.0, self.longest_hold_s) if long else chance.uniform(0.0, 1.5))
        if not forgotten:
            await self._terminate(caller, chance, session_id)

    async def _create(self, caller: Caller, chance: random.Random, body: JSON) -> str:
        """Create with retries until it is known how it went; the same id each time."""
        deadline = time.monotonic() + _GIVE_UP_S
        while time.monotonic() < deadline:
            patience = self._patience(chance)
            try:
                async with asyncio.timeout(patience):
                    answer = await caller.call("create", body=body)
                return str(answer["session_id"])
            except TimeoutError:
                if body["request_id"].endswith(FORGOTTEN):
                    return ""  # went away for good: whatever was begun is nobody's
            except Unknown:
                pass
            except Refused as error:
                self.recorder.note(f"{caller.client}: create refused: {error}")
                return ""
            if self.stopping.is_set():
                deadline = min(deadline, time.monotonic() + 10.0)
            await asyncio.sleep(chance.uniform(0.1, 0.5))
        return ""

    async def _poll(self, caller: Caller, session_id: str, patience_s: float) -> bool:
        deadline = time.monotonic() + patience_s
        while time.monotonic() < deadline and not self.stopping.is_set():
            with contextlib.suppress(Unknown):
                try:
                    state = (await caller.call("get", session_id)).get("state")
                except Refused as error:
                    self.recorder.note(f"{caller.client}: get of {session_id} refused: {error}")
                    return False
                if state in ("READY", "ACTIVE"):
                    return True
                if state in _ENDED:
                    return False
            await self._rest(0.2)
        return False

    async def _watch(self, caller: Caller, session_id: str, patience_s: float) -> bool:
        deadline = time.monotonic() + patience_s
        while time.monotonic() < deadline and not self.stopping.is_set():
            try:
                async with asyncio.timeout(min(8.0, deadline - time.monotonic())):
                    began = time.monotonic()
                    async for session in caller.transport.watch(session_id):
                        caller.seen(session, began)
                        if session.get("state") in ("READY", "ACTIVE"):
                            return True
                        if session.get("state") in _ENDED:
                            return False
            except (Unknown, TimeoutError):
                await self._rest(0.3)
        return False

    async def _use(self, caller: Caller, chance: random.Random, session_id: str) -> None:
        calls: Sequence[tuple[str, str, JSON]] = (
            ("connect", session_id, {}),
            ("extend", session_id, {"extend_by": "60s"}),
            ("list", "", {}),
            ("get", session_id, {}),
        )
        for kind, target, body in chance.sample(calls, 2):
            with contextlib.suppress(Unknown, Refused):
                await caller.call(kind, target, body)

    async def _terminate(self, caller: Caller, chance: random.Random, session_id: str) -> None:
        """Terminate until it is acknowledged."""
        deadline = time.monotonic() + _GIVE_UP_S
        while time.monotonic() < deadline:
            try:
                async with asyncio.timeout(self._patience(chance)):
                    await caller.call("terminate", session_id)
                return
            except (Unknown, TimeoutError):
                await asyncio.sleep(chance.uniform(0.1, 0.5))
            except Refused as error:
                self.recorder.note(f"{caller.client}: terminate of {session_id} refused: {error}")
                return
            if self.stopping.is_set():
                deadline = min(deadline, time.monotonic() + 10.0)

    def _patience(self, chance: random.Random) -> float | None:
        """How long this client waits for one answer: now and then it goes away in the middle, at any point."""
        if self.vanish.is_set() or chance.random() < 0.03:
            self.vanished += 1
            return chance.choice((0.0005, 0.001, 0.002, 0.004, 0.008, 0.015, 0.03))
        return None

    async def _rest(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.stopping.wait()
