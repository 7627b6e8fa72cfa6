"""Does the faults. Each one hurts one part, waits, and heals what is its own to heal; the rest must heal itself."""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from tests.faults.calls import JSON, Refused, Unknown
from tests.faults.history import FORGOTTEN, Fault
from tests.faults.proxy import Way
from tests.faults.rivals import begun_by, lease_again
from tests.faults.rivals import meeting as how_they_met
from tests.faults.sampler import living
from tests.faults.schedule import Due
from tests.faults.tracing import DISK_CALLS, JOURNAL_CALLS
from tests.faults.vanishing import vanish
from tests.faults.ward import Nothing, Skipped, Ward, Wound, is_sleep, send

DAY_S = 86400
_VANISHING = 15
_ELSEWHERE = ("-m", "tests.faults.elsewhere")


class Injuries(Ward):
    """Every kind by name."""

    async def inflict(self, due: Due) -> None:
        """Do one fault, from wound to healing; what goes wrong is noted and costs the run nothing."""
        chance = random.Random(due.seed)
        wound = Wound()
        began = time.monotonic()
        deed: Callable[[random.Random, Wound], Awaitable[None]] = getattr(self, f"_{due.kind}")
        try:
            await deed(chance, wound)
        except Nothing:
            return
        except Skipped as why:
            self.recorder.skipped.setdefault(due.kind, str(why))
            return
        except Exception as error:
            self.recorder.note(f"{due.kind} on {wound.target}: {type(error).__name__}: {error}")
        self.recorder.fault(
            Fault(
                kind=due.kind,
                target=wound.target,
                began=began,
                ended=wound.healed or time.monotonic(),
                launches=wound.launches,
                running=wound.running,
                device=wound.device,
                detail=wound.detail,
            )
        )

    # Processes of ours

    async def _kill_server(self, chance: random.Random, wound: Wound) -> None:
        with self._one("server", wound):
            await self._dead(self.cluster.server)
            await asyncio.sleep(chance.choice((0.0, 0.3, 1.5)))
            wound.healed = time.monotonic()
            await self.revive_server()

    async def _stop_server(self, chance: random.Random, wound: Wound) -> None:
        with self._one("server", wound):
            assert self.cluster.server is not None
            await self._freeze([self.cluster.server.pid], chance.choice((0.5, 2.0, 5.0)))

    async def _kill_agent(self, chance: random.Random, wound: Wound) -> None:
        with self._one(self._node(chance), wound) as node:
            wound.running = await self._serving(node)
            await self._dead(self.cluster.agents[node])
            await asyncio.sleep(chance.choice((0.0, 0.3, 2.0)))
            wound.healed = time.monotonic()
            await self.revive_agent(node)

    async def _restart_agent(self, chance: random.Random, wound: Wound) -> None:
        """An upgrade: stopped on purpose, with its sessions left running."""
        with self._one(self._node(chance), wound) as node:
            wound.running = await self._serving(node)
            with contextlib.suppress(AssertionError):
                await self.cluster.agents[node].stop(10.0)
            wound.healed = time.monotonic()
            await self.revive_agent(node)

    async def _stop_agent(self, chance: random.Random, wound: Wound) -> None:
        with self._one(self._node(chance), wound) as node:
            await self._freeze([self.cluster.agents[node].pid], chance.choice((0.5, 2.0, 6.0)))

    async def _kill_shim(self, chance: random.Random, wound: Wound) -> None:
        process = await self._one_of(chance, wound, shim=True)
        wound.launches = (process.launch_id,)
        send(process.pid, signal.SIGKILL)

    async def _stop_shim(self, chance: random.Random, wound: Wound) -> None:
        process = await self._one_of(chance, wound, shim=True)
        await self._freeze([process.pid], chance.choice((0.5, 2.0, 4.0)))

    async def _kill_application(self, chance: random.Random, wound: Wound) -> None:
        process = await self._one_of(chance, wound, shim=False)
        wound.launches = (process.launch_id,)
        send(process.pid, signal.SIGKILL)

    async def _stop_application(self, chance: random.Random, wound: Wound) -> None:
        process = await self._one_of(chance, wound, shim=False)
        await self._freeze([process.pid], chance.choice((0.5, 2.0, 4.0)))

    # Links and clients

    async def _cut_link(self, chance: random.Random, wound: Wound) -> None:
        await self._turn(Way.CUT, chance, wound, (0.1, 2.0, 8.0))

    async def _half_open_link(self, chance: random.Random, wound: Wound) -> None:
        await self._turn(Way.HALF_OPEN, chance, wound, (1.0, 5.0, 12.0))

    async def _slow_link(self, chance: random.Random, wound: Wound) -> None:
        await self._turn(Way.SLOW, chance, wound, (2.0, 6.0))

    async def _vanish_clients(self, chance: random.Random, wound: Wound) -> None:
        wound.target = "clients"
        self.workload.vanish.set()
        await asyncio.sleep(0.4)
        self.workload.vanish.clear()

    async def _vanish_at_each_point(self, chance: random.Random, wound: Wound) -> None:
        """Clients create sessions and are gone a little later each; some ask again with the same id."""
        wound.target = "clients"
        name = f"vanished-{chance.getrandbits(32):08x}"
        bodies: list[JSON] = [
            # Behind everybody else's in the queue: it is not capacity that is to be hurt.
            {"application": "fake", "request_id": f"{name}-{number}{FORGOTTEN}", "max_duration": "2s", "priority": -1}
            for number in range(_VANISHING)
        ]
        await vanish(self.cluster.http, self.cluster.token, bodies)
        for body in bodies[::3]:
            with contextlib.suppress(Unknown, Refused):
                await self.harness.call("create", body=body)

    async def _drop_wakeups(self, chance: random.Random, wound: Wound) -> None:
        with self._one("wake-ups", wound):
            self.cluster.deaf.touch()
            try:
                await asyncio.sleep(chance.choice((3.0, 8.0)))
            finally:
                self.cluster.deaf.unlink(missing_ok=True)

    async def _rival_writer(self, chance: random.Random, wound: Wound) -> None:
        """A second control plane with a stale view: it leases a slot that is leased. The store must refuse it."""
        wound.target = "store"
        wound.detail = await asyncio.to_thread(lease_again, self.cluster.database, f"rival-{chance.getrandbits(64):x}")
        if not wound.detail:
            raise Nothing

    async def _duplicate_agent(self, chance: random.Random, wound: Wound) -> None:
        """A cloned machine: the same name and token, a directory and an incarnation of its own."""
        with self._one("duplicate", wound), self._one(self._node(chance), wound) as node:
            await self._twin(node, wound, self.cluster.proxies[node].address, chance.choice((3.0, 6.0)))

    async def _clone_agent(self, chance: random.Random, wound: Wound) -> None:
        """A cloned machine that links while the original is cut off; then the original is back, and the two meet."""
        with self._one("duplicate", wound), self._one(self._node(chance), wound) as node:
            apart, together = chance.choice((1.5, 5.0)), chance.choice((4.0, 8.0))
            with self._one(f"{node} link", wound):
                wound.target = node
                self.cluster.proxies[node].turn(Way.CUT)
                try:
                    meeting = asyncio.create_task(self._twin(node, wound, self.cluster.grpc, apart + together))
                    await asyncio.sleep(apart)
                finally:
                    self.cluster.proxies[node].turn(Way.OPEN)
                await meeting

    async def _twin(self, node: str, wound: Wound, server: str, seconds: float) -> None:
        data, original = self.cluster.directory / f"{node}.duplicate", self.cluster.agents[node].log
        name = f"{node}-twin"
        known = [_size(original), _size(self.cluster.directory / f"{name}.log")]
        other = await self.cluster.launch_agent(
            node, data, self.cluster.ports["duplicate"], name=name, server=server, program=_ELSEWHERE
        )
        self.cluster.others.append(other)
        await asyncio.sleep(seconds)
        await self._dead(other)
        await asyncio.to_thread(shutil.rmtree, data, ignore_errors=True)
        # Where it was let in for a while, what was begun by it died with it; what the other one runs must not.
        wound.launches = await asyncio.to_thread(begun_by, other.log)
        said = [log.read_text(errors="replace")[at:] for log, at in zip((original, other.log), known, strict=True)]
        wound.detail = how_they_met(*said)

    # Devices

    async def _lose_gpu(self, chance: random.Random, wound: Wound) -> None:
        node = self._node(chance)
        spared = {row.device for row in (await self._launches()).values() if row.launch_id in self.spared()}
        gpus = self.cluster.gpus[node]
        places = [number for number, gpu in enumerate(gpus) if gpu.uuid not in spared and not gpu.lost]
        if not places:
            raise Nothing
        number = chance.choice(places)
        wound.target, wound.device = node, gpus[number].uuid
        self._change_gpu(node, number, lost=True)
        try:
            await asyncio.sleep(chance.choice((0.5, 4.0, 8.0)))
        finally:
            self._change_gpu(node, number, lost=False)

    async def _xid(self, chance: random.Random, wound: Wound) -> None:
        """An error that an application causes and that costs the device nothing."""
        node = self._node(chance)
        number = chance.randrange(len(self.cluster.gpus[node]))
        gpu = self.cluster.gpus[node][number]
        wound.target, wound.detail = node, "31"
        self._change_gpu(node, number, xids=(*gpu.xids, 31))

    # Disks and clocks

    async def _fill_store(self, chance: random.Random, wound: Wound) -> None:
        await self._fill("server", chance, wound)

    async def _fill_journal(self, chance: random.Random, wound: Wound) -> None:
        await self._fill(self._node(chance), chance, wound)

    async def _fail_store(self, chance: random.Random, wound: Wound) -> None:
        with self._one("server", wound):
            assert self.cluster.server is not None
            await self._trace(self.cluster.server, DISK_CALLS, chance)

    async def _fail_journal(self, chance: random.Random, wound: Wound) -> None:
        with self._one(self._node(chance), wound) as node:
            await self._trace(self.cluster.agents[node], JOURNAL_CALLS, chance)

    async def _jump_clock(self, chance: random.Random, wound: Wound) -> None:
        wound.target, jump = (
            chance.choice(list(self.cluster.clocks)),
            chance.choice((31 * DAY_S, -31 * DAY_S, 3600, -3600)),
        )
        wound.detail = f"{jump:+d} s"
        self.cluster.clocks[wound.target].jump(jump)
        await asyncio.sleep(chance.choice((1.0, 5.0, 10.0)))
        self.cluster.clocks[wound.target].jump(0)

    # Traces

    async def _reuse_pid(self, chance: random.Random, wound: Wound) -> None:
        """An application and its shim die with their agent, and a stranger gets the shim's pid."""
        process = await self._one_of(chance, wound, shim=True)
        node = process.cluster.partition("/")[2]
        with self._one(node, wound):
            wound.launches = (process.launch_id,)
            await self._dead(self.cluster.agents[node])
            for each in await asyncio.to_thread(living, self.cluster.cluster_id):
                if each.launch_id == process.launch_id:
                    send(each.pid, signal.SIGKILL)
            stranger = await self._stranger(process.pid)
            try:
                wound.healed = time.monotonic()
                await self.revive_agent(node)
                # Whoever took the stranger for the application would now end it.
                row = (await self._launches())[process.launch_id]
                with contextlib.suppress(Unknown, Refused):
                    await self.harness.call("terminate", row.session_id)
                await asyncio.sleep(4.0)
                if not is_sleep(process.pid):
                    self.strangers_killed.append(f"pid {process.pid}, once the shim of {process.launch_id}")
            finally:
                send(process.pid, signal.SIGKILL)
                await stranger.wait()

    async def _lose_journal(self, chance: random.Random, wound: Wound) -> None:
        """An agent dies and its record of one launch with it: nobody claims the application."""
        process = await self._one_of(chance, wound, shim=True)
        node = process.cluster.partition("/")[2]
        with self._one(node, wound):
            await self._dead(self.cluster.agents[node])
            entry = self.cluster.directory / node / "journal" / f"{process.launch_id}.json"
            if entry.exists():
                entry.unlink()
                wound.launches = (process.launch_id,)
            wound.healed = time.monotonic()
            await self.revive_agent(node)


def _size(log: Path) -> int:
    return len(log.read_text(errors="replace")) if log.exists() else 0
